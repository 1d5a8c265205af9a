#!/usr/bin/env bash
# Everything that only a GPU can show, in at most eight minutes, most important first:
#
#     bash benchmarks/gpu.sh                    results in ./gpu_results, or in $OUT
#
# Each step has a limit of time and writes its own file as it goes, so that whatever is cut off leaves what it had.
# Exit status: 0, also without a GPU and where time ran out; 1 where the scan, or a training in float16, is wrong.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-gpu_results}
mkdir -p "$out" || exit 2
: > "$out/summary.txt"

say() { echo "$*" | tee -a "$out/summary.txt"; }

wrong=0
# step NAME SECONDS ESSENTIAL(yes|no) COMMAND...
step() {
    local name=$1 seconds=$2 essential=$3 began=$SECONDS rc
    shift 3
    echo "== $name: $*"
    timeout --kill-after=5 "$seconds" "$@" 2>&1 | tee "$out/$name.txt"
    rc=${PIPESTATUS[0]}
    case $rc in
        0) say "$name: done in $((SECONDS - began)) s" ;;
        124 | 137) say "$name: stopped after $seconds s; what it had is in $name.txt" ;;
        *) say "$name: FAILED with status $rc; see $name.txt"
           if [ "$essential" = yes ]; then wrong=1; fi ;;
    esac
}

gpu=$(python "$here/gpu.py" found)
found=$?
say "$gpu"
case $found in
    0) ;;
    3) exit 0 ;;
    *) say "gpu.py does not run: install the package first"; exit 2 ;;
esac

step scan        65 yes python "$here/gpu.py" scan
step float16    120 yes python "$here/gpu.py" float16
step plan       100 no  python "$here/gpu.py" plan
step scan_table  60 no  python "$here/scan.py" --device cuda --repeats 7
step compiled   110 no  python "$here/gpu.py" plan --compile --networks umamba_enc lkm_unet vil2 vm_unet
exit $wrong
