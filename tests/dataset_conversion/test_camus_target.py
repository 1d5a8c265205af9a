"""The CAMUS converter and its target: what it refuses to touch, interruption, a full disk, identical bytes."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from camus_download import CASES, COMMAND, IMAGE, MASK, array, convert, tree

from nnunet_echo.data import raw_dataset
from nnunet_echo.data.check import check_dataset

pytest_plugins = ("camus_download",)


def damage_list(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda source, raw: (source / "database_split" / name).write_text(text)


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda source, raw: shutil.rmtree(source), {}, "does not exist"),
        (lambda source, raw: shutil.rmtree(source / "database_nifti"), {}, "no folder patientXXXX below"),
        (lambda source, raw: shutil.copytree(source, source / "copy"), {}, "patient0001 is in two folders"),
        (
            lambda source, raw: (source / "database_split" / "subgroup_testing.txt").unlink(),
            {},
            "lacks subgroup_testing",
        ),
        (lambda source, raw: shutil.rmtree(source / "database_split"), {"split": "official"}, "use --split 5fold"),
        (lambda source, raw: None, {"split": "10fold"}, "needs subGroup1_training.txt"),
        (
            damage_list("subgroup_training.txt", "patient0001\n../patient2\n"),
            {},
            "line 2: '../patient2' is not a patient",
        ),
        (damage_list("subgroup_training.txt", "patient0001\npatient0007\n"), {}, "a patient belongs to one list"),
        (damage_list("subgroup_training.txt", "patient0001\npatient0001\n"), {}, "names a patient twice"),
        (damage_list("subgroup_validation.txt", ""), {"split": "official"}, "no training or no validation patient"),
        (lambda source, raw: None, {"dataset_id": 1000}, "nnU-Net takes 1 to 999"),
        (lambda source, raw: None, {"views": ("3CH",)}, "expected some of"),
        (lambda source, raw: None, {"split": "random"}, "expected one of"),
        (lambda source, raw: None, {"workers": 0}, "workers=0: expected at least 1"),
        (lambda source, raw: (raw / "Dataset751_Other").mkdir(), {}, "dataset id 751 is taken by"),
        (lambda source, raw: (raw / "Dataset751_CAMUS").write_text(""), {}, "cannot create"),
    ],
)
def test_what_cannot_start_says_why_and_touches_nothing(
    source: Path, raw: Path, prepare: Callable, options: dict, message: str
) -> None:
    prepare(source, raw)
    before = tree(raw)
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        convert(source, **options)
    assert tree(raw) == before


def test_a_folder_that_is_not_ours_is_left_alone(source: Path, raw: Path) -> None:
    folder = raw / "Dataset751_CAMUS"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    before = tree(raw)
    with pytest.raises(FileExistsError, match="this converter did not write it"):
        convert(source)
    assert tree(raw) == before


def test_a_stranger_among_our_cases_stops_the_conversion(source: Path, raw: Path) -> None:
    convert(source)
    stranger = raw / "Dataset751_CAMUS" / "imagesTr" / "mine_0000.nii.gz"
    stranger.write_text("precious")
    before = tree(raw)
    with pytest.raises(FileExistsError, match="mine_0000"):
        convert(source, views=["2CH"])
    assert tree(raw) == before


def test_the_command_line_answers_in_words(source: Path, raw: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(source), "-d", "9", "--views", "4CH", "--workers", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0 and f"{CASES // 2} of {CASES // 2} source cases converted" in done.stdout
    assert (raw / "Dataset009_CAMUS" / "dataset.json").is_file()
    failed = subprocess.run([*COMMAND, str(source / "nowhere")], capture_output=True, text=True)
    assert failed.returncode == 2 and "nowhere" in failed.stderr
    assert failed.stderr.startswith("nnunet-echo convert: error: ")
    (source / "database_nifti" / "patient0002" / IMAGE).write_bytes(b"")
    refused = subprocess.run([*COMMAND, str(source), "--workers", "1"], capture_output=True, text=True)
    assert refused.returncode == 1 and "not a NIfTI-1 file" in refused.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_is_an_error_and_not_a_dataset(source: Path, raw: Path) -> None:
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)); "
        "from nnunet_echo.cli.main import main; sys.exit(main(['convert', 'camus', *sys.argv[1:]]))"
    )
    done = subprocess.run([sys.executable, "-c", limit, str(source), "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and "cannot write" in done.stderr and "Is the disk full" in done.stderr
    assert "Traceback" not in done.stderr and not (raw / "Dataset751_CAMUS" / "dataset.json").exists()
    convert(source)
    assert not [finding for finding in check_dataset(raw / "Dataset751_CAMUS", 1) if finding.problem]


def test_second_run_and_number_of_workers_change_no_byte(source: Path, raw: Path) -> None:
    convert(source)
    first = tree(raw)
    convert(source)
    assert tree(raw) == first
    convert(source, workers=2)
    assert tree(raw) == first


def test_other_options_leave_no_stale_case(source: Path, raw: Path, tmp_path: Path) -> None:
    convert(source, views=["2CH"], split="official", raw=tmp_path / "fresh")
    convert(source)
    convert(source, views=["2CH"], split="official", replace=True)
    assert tree(raw) == tree(tmp_path / "fresh")


def test_a_case_damaged_since_the_last_run_does_not_stay(source: Path, raw: Path) -> None:
    convert(source)
    (source / "database_nifti" / "patient0002" / MASK).write_bytes(b"")
    assert convert(source).exit_code == 1
    folder = raw / "Dataset751_CAMUS"
    assert not list(folder.rglob("CAMUS_patient0002_4CH_ED*"))
    assert "CAMUS_patient0002_4CH_ED" not in (folder / "splits_final.json").read_text()
    assert "CAMUS_patient0002_4CH_ES" in (folder / "splits_final.json").read_text()


@pytest.mark.parametrize("writes", [0, 1, 7, 30, 2 * CASES - 1])
def test_stopped_between_any_two_files_and_run_again(
    source: Path, raw: Path, tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, raw=tmp_path / "undisturbed")
    convert(source, views=["2CH"])  # so that there is an earlier dataset to be taken for a whole one
    real, count = raw_dataset.write_image, 0

    def stop(*arguments: object) -> None:
        nonlocal count
        if count == writes:
            raise KeyboardInterrupt
        count += 1
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(raw_dataset, "write_image", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, replace=True)
    folder = raw / "Dataset751_CAMUS"
    assert not (folder / "dataset.json").exists()
    for image in folder.glob("images*/*"):
        assert array(image).max() > 0
    convert(source)
    assert tree(folder) == tree(tmp_path / "undisturbed" / "Dataset751_CAMUS")


def alive(process: str) -> bool:
    """Whether this process runs; a dead one that nobody has waited for has no command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists child processes by /proc")
def test_killed_with_two_workers_and_run_again(source: Path, raw: Path, tmp_path: Path) -> None:
    convert(source, raw=tmp_path / "undisturbed")
    folder = raw / "Dataset751_CAMUS"
    command = [*COMMAND, str(source), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("labels*/*")):
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "dataset.json").exists()
    deadline = time.monotonic() + 30
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "the workers go on without their parent"
        time.sleep(0.05)
    convert(source, workers=2)
    assert tree(folder) == tree(tmp_path / "undisturbed" / "Dataset751_CAMUS")
