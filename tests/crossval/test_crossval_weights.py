"""`crossval` and `slurm-script` with --pretrained-weights: who gets the file, what is on record, what is refused."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from crossval_dataset import Dataset, crossval

from nnunet_echo.cli.main import main
from nnunet_echo.nnunet.pretrained import RECORD, hash_of_file, in_words, keep_pretrained, pretrained_of

pytest_plugins = ("crossval_dataset",)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "my weights.pth"
    torch.save({"network_weights": {"a": torch.zeros(1)}}, file)
    return file


def test_every_fold_starts_from_it_and_says_so(dataset: Dataset, weights: Path) -> None:
    assert crossval("--pretrained-weights", str(weights)) == 0
    for fold in (*dataset.a, *dataset.b):
        assert fold.options() == [["-pretrained_weights", str(weights)]]
        assert in_words(pretrained_of(fold.folder)) == f"my weights.pth, SHA-256 {hash_of_file(weights)[:12]}"
    assert crossval("--pretrained-weights", str(weights)) == 0  # and again: nothing
    assert [len(fold.starts()) for fold in dataset.a] == [1, 1]


def test_what_goes_on_gets_it_no_more(dataset: Dataset, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE_A", "die once")
    monkeypatch.chdir(weights.parent)  # a relative path is that of the user
    assert crossval("--folds", "0", "--pretrained-weights", weights.name) == 0
    assert dataset.a[0].options() == [["-pretrained_weights", str(weights)], ["--c"]]
    assert (dataset.a[0].folder / RECORD).exists()


@pytest.mark.slow
def test_what_goes_on_keeps_its_record(dataset: Dataset, weights: Path) -> None:
    """That of the release, which our trainers write; here only the file is known."""
    source = {"file": "b.pth", "sha256": "ab" * 32, "layout": "VMamba v0"}
    fold = dataset.a[0]
    stopped = fold.start("hang", "-pretrained_weights", str(weights))
    stopped.terminate()
    assert stopped.wait() == 143
    keep_pretrained(fold.folder, source)
    assert fold.run("train", "-pretrained_weights", str(weights)) == 0
    assert fold.options()[1] == ["--c"]
    assert pretrained_of(fold.folder) == source


@pytest.mark.slow
def test_a_fold_that_runs_from_others_is_refused(
    dataset: Dataset, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    running = dataset.a[0].start("hang")
    for checkpoint in dataset.a[0].folder.glob("checkpoint_*.pth"):
        checkpoint.unlink()
    late = threading.Timer(30, running.terminate)  # crossval would wait for it
    late.start()
    assert crossval("--pretrained-weights", str(weights)) == 2
    late.cancel()
    assert "A fold 0: random weights" in capsys.readouterr().err
    running.terminate()
    assert running.wait() == 143


def test_folds_of_another_start_are_refused(
    dataset: Dataset, weights: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert dataset.a[0].run("train") == 0
    assert crossval("--pretrained-weights", str(weights)) == 2
    error = capsys.readouterr().err
    assert f"1 folds did not start from my weights.pth, SHA-256 {hash_of_file(weights)[:12]}:" in error
    assert "A fold 0: random weights" in error and "move their folders away" in error
    assert dataset.a[1].starts() == []
    keep_pretrained(dataset.a[0].folder, {"file": "b.pth", "sha256": "ab" * 32, "layout": "VMamba v0"})
    for command in (["crossval", "751", "--device", "cpu"], ["slurm-script", "751"]):
        assert main([*command, "--trainers", "A", "B"]) == 2
        error = capsys.readouterr().err
        assert "1 folds did not start from random weights:" in error
        assert "A fold 0: VMamba v0, b.pth, SHA-256 abababababab" in error
    released = {"file": "b.pth", "sha256": "ab" * 32, "layout": "VMamba v0"}
    torch.save({"network_weights": {}, "pretrained": released}, tmp_path / "c.pth")
    assert crossval("-pretrained_weights", str(tmp_path / "c.pth"), "--folds", "0") == 0  # made of that release


def test_all_folds_are_compared_not_only_those_to_train(
    dataset: Dataset, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    assert crossval("--folds", "0", "--pretrained-weights", str(weights)) == 0
    assert crossval("--folds", "1") == 2
    error = capsys.readouterr().err
    assert "2 folds did not start from random weights:" in error and "A fold 0: my weights.pth" in error
    assert main(["slurm-script", "751", "--trainers", "A", "--folds", "1"]) == 2


@pytest.mark.slow
def test_a_fold_that_never_saved_may_start_from_others(dataset: Dataset, weights: Path) -> None:
    assert dataset.a[0].run("fail") == 1
    assert crossval("--folds", "0", "--pretrained-weights", str(weights)) == 0
    assert dataset.a[0].options()[-1] == ["-pretrained_weights", str(weights)]


@pytest.mark.slow
def test_a_fold_that_begins_again_without_has_no_record(dataset: Dataset, weights: Path) -> None:
    assert dataset.a[0].run("fail", "-pretrained_weights", str(weights)) == 1
    assert (dataset.a[0].folder / RECORD).exists()
    assert crossval("--folds", "0") == 0
    assert not (dataset.a[0].folder / RECORD).exists()


@pytest.mark.slow
def test_status_repeats_it(
    dataset: Dataset, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MODE_B", "fail")
    assert crossval("--folds", "0", "--pretrained-weights", str(weights)) == 1
    capsys.readouterr()
    assert main(["status", "751", "--folds", "0"]) == 1
    command = re.search(r"To finish what is missing: nnunet-echo (.*)", capsys.readouterr().out)[1]
    monkeypatch.setenv("MODE_B", "train")
    assert main(shlex.split(command)) == 0
    assert dataset.b[0].options() == [["-pretrained_weights", str(weights)]] * 2


def test_a_script_for_slurm_has_it(
    dataset: Dataset, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/echo")
    monkeypatch.chdir(weights.parent)  # the machines of Slurm start elsewhere
    assert main(["slurm-script", "751", "--trainers", "A", "--pretrained-weights", weights.name]) == 0
    script = capsys.readouterr().out
    done = subprocess.run(["bash", "-c", script], env={"SLURM_ARRAY_TASK_ID": "1"}, capture_output=True, text=True)
    assert f"-pretrained_weights {weights} --wait" in done.stdout
    assert shlex.quote(str(weights)) in script


def test_a_file_that_is_not_there(dataset: Dataset, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    dataset.splits.unlink()  # told before anything is prepared
    assert crossval("--pretrained-weights", str(tmp_path / "nowhere.pth")) == 2
    assert "nowhere.pth is no file. Give one that nnunet-echo weights made" in capsys.readouterr().err
    assert dataset.a[0].starts() == []


def test_a_released_file_itself_is_told_before_anything_starts(
    dataset: Dataset, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "vmamba.pth")
    assert crossval("--pretrained-weights", str(tmp_path / "vmamba.pth")) == 2
    assert "vmamba.pth has no network_weights, as a checkpoint of nnU-Net has." in capsys.readouterr().err
    assert dataset.a[0].starts() == []
