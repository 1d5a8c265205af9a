"""The report: one file, without a network, with what was asked for in it; and its figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from camus_download import tree
from cine_report import PATIENTS

from nnunet_echo.analysis.costs import Costs
from nnunet_echo.evaluation.evaluate import Evaluation
from nnunet_echo.evaluation.metrics import METRICS, metric_columns
from nnunet_echo.evaluation.pairs import Dataset
from nnunet_echo.leaderboard import figures, report
from nnunet_echo.leaderboard.board import Board
from nnunet_echo.leaderboard.collect import ComparedFolds, TrainedModel
from nnunet_echo.leaderboard.report import write_report
from nnunet_echo.leaderboard.statistics import bootstrap_weights, rank
from nnunet_echo.leaderboard.values import Entry
from nnunet_echo.nnunet.logs import TrainingLog

pytest_plugins = ("cine_report",)


def attributes(text: str, *names: str) -> list[str | None]:
    """Values of the attributes of these names, in all tags."""
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, pairs: found.extend(value for name, value in pairs if name in names)
    parser.feed(text)
    return found


def test_no_array_is_spread_into_arguments() -> None:
    """Into an array or object it is no matter."""
    for name in ("charts.js", "report.js"):
        text = Path(report.__file__).with_name("page").joinpath(name).read_text()
        opened: list[str] = []
        for match in re.finditer(r"[([{)\]}]|\.\.\.", text):
            if match[0] in "([{":
                opened.append(match[0])
            elif match[0] == "...":
                assert opened[-1] != "(", text[match.start() - 60 : match.end() + 20]
            else:
                opened.pop()
        assert ".apply(" not in text


def test_the_file_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert attributes(text, "src", "href") == ["#runs"]  # pictures come out of the page's data
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in text
    assert "<img src=x" not in text  # the name of a trainer is text
    assert "&lt;img src=x&gt;" in text


def test_numbers_of_the_page(cine_board: Board) -> None:
    data = report.report_data(cine_board, ["a", "b", "c"])
    assert data["metrics"][0]["values"][0][0] == [1] * PATIENTS  # LV Dice of the perfect one
    assert data["metrics"][0]["values"][0][2][2:] == [None, None]  # not validated
    assert [model["complete"] for model in data["models"]] == [True, True, False]
    (worst,) = (cases for name, cases in data["gallery"][1].items() if name == "Worst")
    scores = data["scores"][1]
    assert scores[data["cases"].index(worst[0])] == min(scores)
    assert set(data["quality"]) == {"Good", "Poor"}
    clip = data["clips"][0]
    rows = cine_board.entries[1].evaluation.frames
    found = [row["prediction_lv_area_mm2"] for row in rows if row["case"] in clip["cases"]]
    assert clip["models"][1] == pytest.approx(found, abs=0.1)
    assert clip["reference"] == clip["models"][0]
    assert data["pictures"][clip["cases"][0]]["models"][0] == data["pictures"][clip["cases"][0]]["reference"]


def test_pictures_stop_at_their_bytes(cine_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = report.report_data(cine_board, ["a", "b", "c"])
    assert not everything["full"]
    monkeypatch.setattr(report, "PICTURE_BYTES", len(str(everything["pictures"])) // 2)
    data = report.report_data(cine_board, ["a", "b", "c"])
    assert data["full"]
    assert 0 < len(str(data["pictures"])) <= report.PICTURE_BYTES * 1.02
    assert all(case in data["pictures"] for groups in data["gallery"] for cases in groups.values() for case in cases)
    assert all(case in data["pictures"] for clip in data["clips"] for case in clip["cases"])


def test_pictures_are_read_for_what_is_shown(cine_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gallery of a trainer shows no outlines of others; nothing is read twice."""
    read = []
    monkeypatch.setattr(report, "CLIPS", 0)
    monkeypatch.setattr(report, "read_outlines", lambda path, dataset: read.append(path) or {"LV": "M0 0z"})
    data = report.report_data(cine_board, ["a", "b", "c"])
    shown = {(model, case) for model, groups in enumerate(data["gallery"]) for of in groups.values() for case in of}
    assert {
        (model, case)
        for case, picture in data["pictures"].items()
        for model, paths in enumerate(picture["models"])
        if paths
    } == shown
    assert len(read) == len(set(read)) == len(shown) + len(data["pictures"])


def test_500_patients_stay_below_20_mb(tmp_path: Path) -> None:
    """All numbers of 500 patients, four frames each, and ten trainers; pictures have their own limit."""
    patients = [f"CAMUS_patient{number:04d}" for number in range(500)]
    structures = {"LV": (1,), "MYO": (2,), "LA": (3,), "LV_EPI": (1, 2)}
    dataset = Dataset(structures, frozenset(range(4)), ".nii.gz", "mm", None)
    rng, columns, entries = np.random.default_rng(0), list(metric_columns("mm").values()), []
    for name in (f"nnUNetTrainer{number}" for number in range(10)):
        cases = [
            {
                "trainer": name,
                "fold": 0,
                "case": f"{patient}_{frame}",
                "patient": patient,
                "structure": structure,
                **dict(zip(columns, values, strict=True)),
                "prediction_empty": 0,
                "reference_empty": 0,
            }
            for patient in patients
            for frame in ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES")
            for structure, values in zip(structures, rng.random((4, len(columns))).tolist(), strict=True)
        ]
        volumes = {
            f"{side}_{volume}": 50.123
            for side in ("prediction", "reference")
            for volume in ("edv_ml", "esv_ml", "ef_percent")
        } | {"recorded_ef_percent": 50.0}
        flags = {"prediction_flags": "", "reference_flags": ""}
        ef = [
            {"trainer": name, "fold": 0, "patient": patient, "method": "ase", "planes": "biplane"} | volumes | flags
            for patient in patients
        ]
        model = TrainedModel(name, name, "nnUNetPlans", "2d", tmp_path, (0,), "complete", ())
        entries.append(Entry(model, {}, Evaluation(cases, ef, [], [], [], {}), TrainingLog(), Costs()))
    weights, scores = bootstrap_weights(500, 0, samples=100), rng.random((500, 10))
    split = ComparedFolds({0: frozenset()}, {0: frozenset(patients)}, "0123456789ab")
    board = Board(
        dataset,
        tmp_path,
        tmp_path,
        {},
        "2d",
        split,
        entries,
        patients,
        "dice",
        scores,
        weights,
        rank(scores, weights, higher_is_better=True),
        "",
        [],
        "ase",
        "references",
        0,
    )
    write_report(board, tmp_path)
    numbers = (tmp_path / "index.html").stat().st_size
    assert 500_000 < numbers < 20_000_000 - report.PICTURE_BYTES


def test_figures(cine_board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "shown_metrics", lambda _: [METRICS["nsd_2"]])  # one of five that are alike
    files = figures.write_figures(cine_board, tmp_path / "one")
    assert {path.stem for path in files} == {"boxes_nsd_2", "ranks", "quality"}  # without ED and ES no EF
    assert all(path.read_bytes().startswith(b"%PDF") for path in files)
    for path in files:
        pixels = mpimg.imread(path.with_suffix(".png"))[..., :3]
        assert pixels.shape[1] == 300 * (4.5 if path.stem == "ranks" else 7.1)
        assert np.ptp(pixels, axis=2).max() > 0.3  # colour: dots, not axes alone
    figures.write_figures(cine_board, tmp_path / "two")
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
