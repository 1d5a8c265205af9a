"""What the conversion of EchoNet-Dynamic costs: time and memory of `nnunet-echo convert echonet`, as a user runs it.

    python benchmarks/conversion.py                                   # 10,030 videos, as many as the release has
    python benchmarks/conversion.py --videos 2000 --workers 1 2       # two processes against one

The videos are the phantom's without oddities. `--drawn` of them are drawn, which takes a third of a second each; the
others are copies under other names, byte for byte but files of their own. Before each run all videos are dropped from
the file cache, so that they are read from the disk. They need about 0.9 MB each below `--folder`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from itertools import islice
from pathlib import Path

from measured import run_measured
from tqdm import tqdm

from nnunet_echo.dataset_conversion.echonet.phantom import write_echonet

SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10030, help="how many to convert (default: 10030)")
    parser.add_argument("--drawn", type=int, default=500, help="how many of them differ (default: 500)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="processes, a run for each (default: 2)")
    parser.add_argument("--folder", help="where to write, and delete again, videos and datasets (default: TMPDIR)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        source = Path(scratch, "source")
        drawn = min(args.drawn, args.videos)
        write_echonet(source, drawn, SEED, oddities=False, workers=None)
        repeat(source, args.videos, drawn)
        print("| videos | processes | seconds | videos per second | processor time, s | peak memory, MiB |")
        print("|---:|---:|---:|---:|---:|---:|")
        for workers in args.workers:
            raw = Path(scratch, f"raw_{workers}")
            command = [sys.executable, "-m", "nnunet_echo.cli.main", "convert", "echonet", str(source)]
            command += ["--raw", str(raw)]
            drop_from_cache(source)
            cost = run_measured([*command, "--workers", str(workers)])
            masks = sum(1 for _ in raw.glob("*/labels*/*"))
            assert masks == 2 * args.videos, f"{masks} masks of {args.videos} videos"
            print(
                f"| {args.videos:,} | {workers} | {cost.seconds:.0f} | {args.videos / cost.seconds:.0f} | "
                f"{cost.processor_seconds:.0f} | {cost.peak_mib:.0f} |",
                flush=True,
            )


def repeat(source: Path, videos: int, drawn: int) -> None:
    """Copy the videos and their rows in both tables, each time under other names, until there are so many."""
    tables = {}
    for name in ("FileList.csv", "VolumeTracings.csv"):
        tables[name] = (source / name).read_text(encoding="utf-8").splitlines(keepends=True)
    originals = [row.partition(",")[0] for row in tables["FileList.csv"][1:]]
    copies = islice(((original, number) for number in range(1, videos) for original in originals), videos - drawn)
    copied: dict[int, set[str]] = {}
    for original, number in tqdm(copies, total=videos - drawn, desc="copying", unit="video"):
        shutil.copyfile(source / "Videos" / f"{original}.avi", source / "Videos" / f"{original}-{number}.avi")
        copied.setdefault(number, set()).add(original)
    for name, (_, *rows) in tables.items():
        with (source / name).open("a", encoding="utf-8") as file:
            for number, members in copied.items():
                for row in rows:
                    original = row.partition(",")[0].removesuffix(".avi")
                    if original in members:
                        file.write(row.replace(original, f"{original}-{number}", 1))


def drop_from_cache(source: Path) -> None:
    for path in (source / "Videos").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
