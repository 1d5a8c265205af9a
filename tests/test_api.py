"""The Python API: what `import nnunet_echo` offers, its examples, and that it opens no process and draws no bar."""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import pandas
import pytest
from leaderboard_study import GOOD, NAME, Study
from ted_download import plain_picture

import nnunet_echo
from nnunet_echo.data import parallel
from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.frames import write_frames
from nnunet_echo.data.raw_dataset import write_dataset
from nnunet_echo.data.reader import Reader
from nnunet_echo.dataset_conversion.camus.phantom import write_camus, write_camus_2019
from nnunet_echo.dataset_conversion.echonet.phantom import write_echonet
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.evaluation.evaluate import TABLES, Evaluation
from nnunet_echo.leaderboard import board as board_module
from nnunet_echo.phantom import cine as phantom_cine

pytest_plugins = ["leaderboard_study"]
FUNCTIONS = {
    "convert": nnunet_echo.convert,
    "evaluate": nnunet_echo.evaluate,
    "lv_shape": nnunet_echo.lv_shape,
    "lv_volumes": nnunet_echo.lv_volumes,
    "leaderboard": board_module.leaderboard,
}


@pytest.fixture
def place(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the examples speak of: a download of six patients, predictions, and a study for nnU-Net."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantom_cine, "ultrasound", plain_picture)
    write_camus("CAMUS_public", 6, 0, spacing_mm=3.0, half_sequence=False)
    shutil.copytree(study.raw / "labelsTr", "references")
    shutil.copytree(study.model(GOOD) / "fold_0" / "validation", "predictions")
    shutil.copy(study.raw / "dataset.json", "references")
    for case in Path("references").glob("*.nii.gz"):
        if not Path("predictions", case.name).exists():
            case.unlink()
    return tmp_path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process and no bar can be had."""
    monkeypatch.setattr(futures.ProcessPoolExecutor, "__init__", lambda *_, **__: pytest.fail("opens processes"))
    monkeypatch.setattr(parallel, "tqdm", lambda *_, **__: pytest.fail("draws a bar"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_runs_in_this_process_without_a_word(
    name: str, place: Path, alone: None, capfd: pytest.CaptureFixture
) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(FUNCTIONS[name], name)
    told: list[str] = []
    result = doctest.DocTestRunner().run(example, out=told.append)
    assert result.attempted > 1 and result.failed == 0, "".join(told)
    assert capfd.readouterr().err == ""


def test_the_contents_are_what_they_are_called_in_any_order_of_imports() -> None:
    for name, function in FUNCTIONS.items():
        assert name in nnunet_echo.__all__ and name in dir(nnunet_echo)
        assert getattr(nnunet_echo, name) in (function, sys.modules["nnunet_echo.leaderboard"])
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        nnunet_echo.evalute  # noqa: B018
    for first in ("", "import nnunet_echo.leaderboard.board; "):
        code = (
            f"{first}import nnunet_echo, sys; one = nnunet_echo.leaderboard; assert callable(one); "
            "import nnunet_echo.leaderboard.report; assert nnunet_echo.leaderboard is one; "
            "assert callable(nnunet_echo.leaderboard.report.write_report)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_the_contents_page_imports_nothing() -> None:
    code = "import sys; import nnunet_echo; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "nnunetv2", "pandas"} & set(done.stdout.split())


def test_the_leaderboard_is_the_function_of_its_name(study: Study, alone: None) -> None:
    board = nnunet_echo.leaderboard(751, "2d", trainers=[GOOD], folds=[0])
    assert board.table("leaderboard")["trainer"].tolist() == [GOOD]
    assert board.table("comparisons").empty
    cases = board.table("cases")
    assert set(cases["trainer"]) == {GOOD} and list(cases) == list(board.entries[0].evaluation.cases[0])
    with pytest.raises(ValueError, match="name='casses': there is no such table. Choose from leaderboard, comp.*cases"):
        board.table("casses")


def test_tables_are_data_frames(place: Path) -> None:
    evaluation = nnunet_echo.evaluate("predictions", "references")
    for name in TABLES:
        table = evaluation.table(name)
        rows = getattr(evaluation, name)
        assert isinstance(table, pandas.DataFrame) and len(table) == len(rows)
        for row, found in zip(rows, table.to_dict("records"), strict=True):
            assert row.keys() == found.keys()
            assert all(
                found[key] == value or (pandas.isna(found[key]) and pandas.isna(value)) for key, value in row.items()
            )
    assert Evaluation([], [], [], [], [], {}).table("cases").empty
    with pytest.raises(ValueError, match="name='summary': there is no such table. Choose from cases, patients"):
        evaluation.table("summary")


def test_convert_knows_its_datasets_and_their_options(place: Path) -> None:
    with pytest.raises(ValueError, match="dataset='cmaus': there is no such dataset. Choose from .*camus.*echonet"):
        nnunet_echo.convert("cmaus", "CAMUS_public", raw="raw")
    with pytest.raises(ValueError, match="veiws=.*: camus has no such option. Choose from mode, split, .*views"):
        nnunet_echo.convert("camus", "CAMUS_public", raw="raw", veiws=("4CH",))
    with pytest.raises(ValueError, match="split='6fold'"):
        nnunet_echo.convert("camus", "CAMUS_public", raw="raw", split="6fold")
    assert not Path("raw").exists()


def test_processes_and_a_bar_are_there_when_asked_for(place: Path, capfd: pytest.CaptureFixture) -> None:
    options = {"raw": "raw", "views": ("4CH",)}
    nnunet_echo.convert("camus", "CAMUS_public", **options, dataset_id=9, workers=2, progress=True)
    assert "Dataset009_CAMUS" in capfd.readouterr().err
    nnunet_echo.evaluate("predictions", "references", progress=True)
    assert "evaluate" in capfd.readouterr().err


@pytest.mark.parametrize(
    "function",
    [
        *FUNCTIONS.values(),
        Reader.convert,
        write_dataset,
        check_dataset,
        write_frames,
        write_echonet,
        parallel.map_in_order,
        write_camus,
        write_camus_2019,
        write_ted,
    ],
)
def test_one_process_and_no_bar_are_the_default(function: Callable) -> None:
    parameters = inspect.signature(function).parameters
    if function not in (nnunet_echo.lv_shape, nnunet_echo.lv_volumes):
        assert parameters["progress"].default is False
    if "workers" in parameters:
        assert parameters["workers"].default == 1


@pytest.mark.parametrize("name", [NAME, "751"])
def test_the_command_line_asks_for_both(
    name: str, study: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    from nnunet_echo.cli.main import main

    monkeypatch.setattr(parallel, "_processors", lambda: 1)
    assert main(["check", name]) == 0
    assert NAME in capfd.readouterr().err  # the bar
