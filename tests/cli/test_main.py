"""The command line as a whole: one row and one file for each command, one place for errors, options in one place."""

from __future__ import annotations

import ast
import importlib
import logging
from pathlib import Path

import pytest

from nnunet_echo.cli.main import COMMANDS, main
from nnunet_echo.data import target

PACKAGE = Path(__file__).resolve().parents[2] / "nnunet_echo"
# The least that each command can be told.
LINES = {
    "doctor": [],
    "demo": [],
    "phantom": ["camus", "out"],
    "convert": ["camus", "source"],
    "check": ["751"],
    "crossval": ["751", "--trainers", "A"],
    "status": ["751"],
    "slurm-script": ["751", "--trainers", "A"],
    "predict": ["-i", "images", "-o", "masks", "-m", "model"],
    "cine": ["-i", "loop.dcm", "-o", "out", "-m", "model"],
    "export": ["model", "-o", "model.zip"],
    "serve": ["-m", "model"],
    "frames": ["maps", "-d", "753", "-o", "out"],
    "evaluate": ["predictions", "references", "-o", "out"],
    "measure": ["masks"],
    "plan": ["751", "--spacing", "1"],
    "weights": ["sam.pth", "751", "-tr", "A", "-o", "out.pth"],
    "leaderboard": ["751", "-o", "out"],
    "erf": ["-o", "out"],
}


def module_of(command: str):
    return importlib.import_module(f"nnunet_echo.cli.{command.replace('-', '_')}")


def raises(error: BaseException):
    def run(_args: object) -> int:
        raise error

    return run


def test_a_command_is_one_row_and_one_file() -> None:
    files = {path.stem.replace("_", "-") for path in (PACKAGE / "cli").glob("*.py")}
    assert files - {"--init--", "main", "options"} == set(COMMANDS) == set(LINES)
    for command in COMMANDS:
        assert callable(module_of(command).run) and callable(module_of(command).add_arguments)


def test_the_library_reads_no_command_line_and_prints_nothing() -> None:
    """Readers describe the options of their datasets, and train_fold is a process of its own."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "cli" or path.name == "train_fold.py":
            continue
        tree = list(ast.walk(ast.parse(path.read_text())))
        calls = {node.func.id for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        imports = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
        assert "print" not in calls, path
        assert "argparse" not in imports or path.name == "reader.py", path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("error", [ValueError("the reason"), OSError("the reason"), RuntimeError("the reason")])
def test_an_error_is_one_line_and_with_traceback_tells_where(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(module_of(command), "run", raises(error))
    assert main([command, *LINES[command]]) == 2
    line = f"nnunet-echo {command}: error: the reason\n"
    assert capsys.readouterr().err == line
    assert main([command, *LINES[command], "--traceback"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and "in run\n" in said and said.endswith(line)


def test_traceback_may_stand_before_what_a_command_has_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(module_of("phantom"), "run", raises(ValueError("the reason")))
    assert main(["phantom", "--traceback", "camus", "out"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_interrupted(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(module_of(command), "run", raises(KeyboardInterrupt()))
    assert main([command, *LINES[command]]) == 130
    rest = {
        "cine": "; the clip under way left nothing, and results that are there are complete",
        "convert": "; the same command again completes the dataset",
        "predict": "; the masks that are there are complete, and --continue_prediction goes on from them",
    }.get(command, "")
    assert capsys.readouterr().err == f"interrupted{rest}\n"


def test_what_is_no_error_of_a_user_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of("status"), "run", raises(KeyError("a bug")))
    with pytest.raises(KeyError):
        main(["status", "751"])


def test_warnings_of_the_library_are_shown_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def run(_args: object) -> int:
        target._warn_of_no_lock(Path("there"), "no locks")
        logging.getLogger("nnunet_echo.data").info("not worth a line")
        return 0

    monkeypatch.setattr(module_of("status"), "run", run)
    for _ in range(2):  # the second run has no handler of the first
        assert main(["status", "751"]) == 0
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == ("warning: there cannot be locked (no locks). See that no other conversion writes to it.\n")


def test_doctor_takes_itself_for_no_stranger(capsys: pytest.CaptureFixture) -> None:
    main(["doctor"])
    assert "this one is in" not in capsys.readouterr().out
