"""What trainings leave on the disk in whatever state: damaged logs and summaries, numbers that are none."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from crossval_dataset import Dataset

from nnunet_echo.cli.main import main
from nnunet_echo.nnunet.logs import logged_split, read_training
from nnunet_echo.nnunet.results import Fold, read_fold

pytest_plugins = ("crossval_dataset",)


@pytest.mark.parametrize(
    "line",
    [
        "x: Epoch time: 1.2.3 s",
        "x: Epoch time: . s",
        f"x: Epoch time: {'9' * 400} s",
        "x: Epoch time: inf s",
        "x: Epoch time: nan s",
        f"x: Epoch {'9' * 5000}",
        "x: Epoch ٣",
        "x: Peak memory ... GiB",
        f"x: Peak memory {'9' * 400} GiB",
        "2026-13-01 10:00:00.000000: predicting A",
        "2026-01-01 10:00:00.0: predicting A",
        f"This split has {'9' * 5000} training and 2 validation cases",
        "\x00\x1b[2J",
        "",
    ],
)
def test_a_damaged_line_of_a_log_is_passed_over(tmp_path: Path, line: str) -> None:
    good = (
        "x: This split has 6 training and 2 validation cases\n"
        "x: Epoch 0\nx: Peak memory 1.5 GiB\nx: Epoch time: 3.0 s\n"
        "2026-01-01 10:00:00.000000: predicting A\n2026-01-01 10:00:01.000000: predicting B\n"
        "2026-01-01 09:00:00.000000: predicting C\n"
    )
    log = tmp_path / "training_log_2026_1_1_10_00_00.txt"
    log.write_text(f"{line}\n{good}{line}\n")
    (tmp_path / "training_log_2026_2_1_10_00_00.txt").mkdir()
    (tmp_path / f"training_log_{'9' * 200}.txt").write_bytes(b"\xff\x00")
    training = read_training([tmp_path])
    assert (training.epochs, training.epoch_s, training.peak_gib, training.validation_s) == (1, 3.0, 1.5, 1.0)
    assert logged_split(tmp_path) == (6, 2)
    assert str(read_fold(tmp_path)).startswith("stopped, epoch 1/?")


@pytest.mark.parametrize(
    "content",
    [
        '{"num_epochs": Infinity}',
        '{"num_epochs": "inf"}',
        '{"num_epochs": NaN}',
        '{"num_epochs": 1e400}',
        '{"num_epochs": -5}',
        '{"num_epochs": [1]}',
        '{"num_epochs": null}',
        '{"num_epochs": "many"}',
        "[]",
        "5",
        "",
        "[" * 10**5,
        '{"num_epochs": ' + "9" * 4000 + "}",
    ],
)
def test_epochs_that_are_no_number(dataset: Dataset, capsys: pytest.CaptureFixture, content: str) -> None:
    folder = dataset.a[0].folder
    folder.mkdir(parents=True)
    (folder / "training_log_2026_1_1_10_00_00.txt").write_text("x: Epoch 0\nx: Epoch time: 3.0 s\n")
    (folder / "debug.json").write_text(content)
    (folder / "train_fold.log").mkdir()
    assert main(["status", "751"]) == 1
    assert "A fold 0: stopped, epoch 1/?" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [1e300, math.inf, math.nan, 1e12])
def test_an_end_that_no_calendar_has(tmp_path: Path, seconds: float) -> None:
    fold = Fold(tmp_path, "running", 1, 1000, epoch_s=seconds, written=time.time())
    assert str(fold) == "running, epoch 1/1000, last write 0 s ago"


@pytest.mark.parametrize("content", ["5", "[]", '"done"', "[" * 10**5])
def test_a_summary_that_is_none_is_not_done(dataset: Dataset, content: str) -> None:
    fold = dataset.a[0]
    fold.run("train")
    (fold.folder / "validation" / "summary.json").write_text(content)
    assert read_fold(fold.folder).state == "stopped" or read_fold(fold.folder).state == "failed"
