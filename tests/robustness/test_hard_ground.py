"""Every converter on every kind of damage: a correct dataset, or a refusal by name and for a reason.

Each of the tests damages a small phantom in one random way and converts it by the command. Whatever happens, it must
answer in words, leave the source alone, write nothing outside its dataset and no case by halves; every case must be the
undamaged one, byte for byte, or be named. Where a file can hold something else without a sign of it (`DAMAGES`), the
case must hold just what the file does.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from camus_download import array
from damages import DAMAGES
from hard_ground import SOURCES, Undamaged, convert, images

from nnunet_echo.data.check import check_dataset

pytest_plugins = ("hard_ground",)

SEEDS = 2  # of every damage in every source


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A conversion that waits for ever, for a pipe say, fails."""

    def stop(*_: object) -> None:
        pytest.fail("the conversion hangs")  # no Exception, which a converter may take for a damaged file

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(300)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", SOURCES)
def test_damaged(
    name: str,
    damage: str,
    seed: int,
    undamaged: Callable[[str], Undamaged],
    raw: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, source = undamaged(name), shutil.copytree(undamaged(name).folder, raw.parent / "source")
    assert len(before.images) > 5, "nothing to compare with"
    (raw.parent / "evil").write_text("precious")
    apply, unnoticed = DAMAGES[damage]
    rng = np.random.default_rng([seed, *f"{name} {damage}".encode()])
    where = apply(rng, source).relative_to(source).as_posix()
    outside = listing(raw.parent)

    code = convert(SOURCES[name], source, raw)

    shown = capsys.readouterr()
    assert listing(raw.parent) == outside, "changed outside of the dataset"
    if code == 2:
        answer = shown.err[shown.err.index("error: ") :]
        assert not list(raw.rglob("*.nii.gz")) and "Traceback" not in answer and len(answer) > 30, answer
        return
    (folder,) = raw.iterdir()
    report = json.loads((folder / "conversion_report.json").read_text())
    notes = [f"{note['subject']} {note['message']}" for note in report["refused"] + report["warnings"]]
    assert code == bool(report["refused"])
    written = images(raw)
    assert set(written) <= set(before.images), "a case that was not there before"
    for image in sorted(set(before.images) - set(written)):
        person = re.search(r"(patient|test)\d+|0X[0-9A-F]+", image)[0].replace("test", "patient")
        gone = damage == "folder missing" and Path(where).name == person
        assert gone or any(person in note for note in notes), f"{image} is lost without a word"
    for case in sorted(
        {
            image.split(" ")[1].removesuffix(".nii.gz").removesuffix("_0000")
            for image in written
            if written[image] != before.images[image]
        }
    ):
        assert unnoticed, f"{case} is not what it was"
        pair = SOURCES[name].held(source, case)
        for pixels, path in zip(pair, (f"images*/{case}_0000.nii.gz", f"labels*/{case}.nii.gz"), strict=True):
            found = [array(file) for file in folder.glob(path)]
            assert (pixels is None and not found) or np.array_equal(found[0], pixels), f"{where} does not hold {case}"
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]
    assert not (folder / ".unfinished").exists()


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, folder and link below, but those of nnUNet_raw, with size and time of change; no file is opened."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.relative_to(folder).parts[0] != "raw"
    }
