"""Options as nnU-Net spells them, beside ours."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from test_main import LINES, module_of

from nnunet_echo.cli.main import main

OURS_AND_NNUNETS = {
    "--trainers": "-tr",
    "--trainer": "-tr",
    "--device": "-device",
    "--folds": "-f",
    "--plans": "-p",
    "--configuration": "-c",
    "--workers": "-np",
    "--output": "-o",
}
SWEEP = ["--trainers A B", "--device cpu", "--folds 0 1-2", "--plans P", "--configuration 3d_fullres"]
ACCEPTED = {
    "demo": ["--trainer A", "--device cpu", "--output elsewhere"],
    "check": ["--workers 2"],
    "crossval": SWEEP,
    "slurm-script": SWEEP,
    "status": ["--trainers A B", "--folds 0 1-2", "--plans P", "--configuration 3d_fullres"],
    "frames": ["--output elsewhere", "--workers 2"],
    "evaluate": ["--output elsewhere", "--workers 2"],
    "leaderboard": [
        "--trainers A B",
        "--folds 0 1-2",
        "--plans P",
        "--configuration 3d_fullres",
        "--output elsewhere",
        "--workers 2",
    ],
    "erf": ["--trainers A B", "--device cpu", "--output elsewhere"],
}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch):
    """What a line becomes for the command's `run`."""

    def parse(command: str, *words: str) -> dict[str, object]:
        found: list[argparse.Namespace] = []
        monkeypatch.setattr(module_of(command), "run", lambda args: found.append(args) or 0)
        assert main([command, *words]) == 0
        return vars(found[0])

    return parse


@pytest.mark.parametrize("command", ACCEPTED)
def test_nnunets_spelling_means_the_same(command: str, parsed) -> None:
    for option in ACCEPTED[command]:
        ours, *values = option.split()
        result = parsed(command, *LINES[command], ours, *values)
        assert parsed(command, *LINES[command], OURS_AND_NNUNETS[ours], *values) == result
        if LINES[command] and ours not in LINES[command]:
            assert result != parsed(command, *LINES[command])  # the option was heard


@pytest.mark.parametrize("command", ["check", "crossval", "slurm-script", "status", "leaderboard"])
def test_the_dataset_is_an_argument_or_d(command: str, parsed, capsys: pytest.CaptureFixture) -> None:
    _, *others = LINES[command]
    result = parsed(command, "751", *others)
    assert result["dataset"] == "751"
    assert parsed(command, "-d", "751", *others) == parsed(command, *others, "-d", "751") == result
    for words in (["751", "-d", "752", *others], ["-d", "752", "751", *others], others):
        with pytest.raises(SystemExit) as left:
            main([command, *words])
        assert left.value.code == 2
    assert "dataset" in capsys.readouterr().err


def test_folds_of_the_leaderboard_may_be_ranges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path
) -> None:
    module, seen = module_of("leaderboard"), []

    def leaderboard(*_: object, folds: list[int] | None, **others: object) -> None:
        seen.append(folds)
        raise ValueError("stop")

    monkeypatch.setattr(module, "leaderboard", leaderboard)
    for words in ([], ["-f", "3", "0-2"], ["--folds", "4"]):
        assert main(["leaderboard", "751", "-o", str(tmp_path), *words]) == 2
    assert seen == [None, [0, 1, 2, 3], [4]]
    capsys.readouterr()
    for word in ("2-1", "x", "0-99999999999"):
        assert main(["leaderboard", "751", "-o", str(tmp_path), "-f", word]) == 2
        assert f"--folds {word}" in capsys.readouterr().err.replace("'", "")
    assert len(seen) == 3


WHOLE = [("-c", "3d_fullres"), ("-c", "2d"), ("-tr", "NOPE"), ("-p", "NOPE")]
IN_A_FILE = [("-f", "3"), ("-f", "0"), ("-chk", "foo"), ("--import-trainer",)]


@pytest.mark.parametrize("command", ["predict -i x -o out", "cine -i x -o out", "serve --no-browser"])
@pytest.mark.parametrize("options", WHOLE + IN_A_FILE, ids=" ".join)
def test_options_that_would_change_nothing_are_refused(
    command: str,
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Beside -m, which names all of a model; beside a file, what it holds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model.zip").touch()
    load = "nnunet_echo.cine.model.CineModel.load"
    monkeypatch.setattr(load, lambda *_, **__: pytest.fail("loaded"))
    for model in ("model", "model.zip") if options in WHOLE else ("model.zip",):
        assert main([*command.split(), "-m", model, *options]) == 2
        said = capsys.readouterr().err
        if options in WHOLE:
            assert f"error: {' '.join(options)}: -m names the whole model. Leave out one of the two." in said
        else:
            assert f"error: {options[0]}: model.zip is one exported model" in said
    given: list[object] = []
    monkeypatch.setattr(load, lambda *found, **_: given.extend(found) or pytest.fail("loaded"))
    if options in IN_A_FILE:  # a folder takes them
        with pytest.raises(pytest.fail.Exception):
            main([*command.split(), "-m", "model", *options])
        assert given[3] == (options[1] if options[0] == "-chk" else "checkpoint_final.pth")
