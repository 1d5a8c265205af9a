"""The report: one file, without a network, with what was asked for in it; opened and used in a browser."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import tree

from nnunet_echo.analysis.costs import Costs
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.drawing.outlines import svg_path
from nnunet_echo.drawing.pictures import read_picture
from nnunet_echo.drawing.style import short_names
from nnunet_echo.evaluation.evaluate import Evaluation
from nnunet_echo.evaluation.metrics import METRICS, metric_columns
from nnunet_echo.evaluation.pairs import Dataset
from nnunet_echo.leaderboard import figures, report
from nnunet_echo.leaderboard.board import Board, leaderboard
from nnunet_echo.leaderboard.collect import Model, Split
from nnunet_echo.leaderboard.report import write_report
from nnunet_echo.leaderboard.statistics import bootstrap_weights, rank
from nnunet_echo.leaderboard.values import Entry
from nnunet_echo.nnunet.logs import Training
from nnunet_echo.phantom.cine import render

FRAMES, PATIENTS, SPACING_MM = 6, 4, 2.0
BAD = "nnUNetTrainer<img src=x>_a&b"  # a folder may be called so
DATASET_JSON = {
    "labels": {"background": 0, "LV": 1, "MYO": 2, "LA": 3},
    "file_ending": ".nii.gz",
    "channel_names": {"0": "us"},
    "case_id_pattern": r"(?P<patient>p\d)_(?P<view>4CH)_(?P<frame>\d+)",
}


def attributes(text: str, *names: str) -> list[str | None]:
    """Values of the attributes of these names, in all tags."""
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, pairs: found.extend(value for name, value in pairs if name in names)
    parser.feed(text)
    return found


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM, SPACING_MM))
    sitk.WriteImage(image, str(path), True)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Four beating hearts of six frames, two folds; one trainer is a pixel off, one has a single fold."""
    folder = tmp_path_factory.mktemp("films")
    raw, results = folder / "raw" / "Dataset752_FILMS", folder / "results" / "Dataset752_FILMS"
    cases = [[f"p{patient}_4CH_{frame:02d}" for frame in range(FRAMES)] for patient in range(PATIENTS)]
    folds = [cases[0] + cases[1], cases[2] + cases[3]]
    for patient, of_patient in enumerate(cases):
        for frame, case in enumerate(of_patient):
            phase = (1 - np.cos(2 * np.pi * frame / FRAMES)) / 2
            image, labels = render(camus_heart(3, patient + 1), "4CH", phase, frame=frame + 1, spacing_mm=SPACING_MM)
            write(raw / "imagesTr" / f"{case}_0000.nii.gz", image)
            write(raw / "labelsTr" / f"{case}.nii.gz", labels)
            for trainer, shift in (("nnUNetTrainer", 0), (BAD, 1), ("nnUNetTrainer_half", 2)):
                fold = results / f"{trainer}__nnUNetPlans__2d" / f"fold_{patient // 2}" / "validation"
                if patient < 2 or "half" not in trainer:
                    write(fold / f"{case}.nii.gz", np.roll(labels, shift, axis=1))
                    (fold / "summary.json").write_text("{}")
    (raw / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (raw / "splits_final.json").write_text(json.dumps([{"train": folds[1 - k], "val": folds[k]} for k in (0, 1)]))
    (raw / "cases.csv").write_text(
        "case,quality\n"
        + "".join(f"{case},{'Good' if number % 2 else 'Poor'}\n" for number, of in enumerate(cases) for case in of)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(folder / "raw"))
        patch.setenv("nnUNet_results", str(folder / "results"))
        patch.delenv("nnUNet_preprocessed", raising=False)
        return leaderboard("752", workers=1)


@pytest.fixture(scope="module")
def page(films: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    write_report(films, out)
    return out / "index.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not here")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def view(chromium: object, page: Path) -> Iterator[object]:
    """The page in the browser, offline; fails on errors in the console and on every request."""
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            complaints.append(request.url) if not request.url.startswith(("data:", page.as_uri())) else None
        ),
    )
    tab.goto(page.as_uri())
    yield tab
    context.close()
    assert complaints == []


def test_a_column_is_sorted_by_a_click(view: object) -> None:
    def names() -> list[str]:
        return view.eval_on_selector_all(".board tbody th", "cells => cells.map(cell => cell.title)")

    assert names() == ["nnUNetTrainer", BAD, "nnUNetTrainer_half"]
    header = view.locator(".board th", has_text="LV").nth(0)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert names() == ["nnUNetTrainer_half", BAD, "nnUNetTrainer"]
    header.locator("button").click()
    assert names() == ["nnUNetTrainer", BAD, "nnUNetTrainer_half"]
    view.locator(".board th", has_text="Rank").locator("button").click()
    view.locator(".board th", has_text="Rank").locator("button").click()
    assert names()[-1] == "nnUNetTrainer_half"  # without a rank: last, whichever way


def test_a_film_plays(view: object) -> None:
    """Image, outlines, slider and the mark on the area curve move together."""

    def state() -> tuple:
        return tuple(
            view.evaluate("""() => {
            const [canvas, svg] = document.getElementById("cine").children;
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let sum = 0;
            for (let k = 0; k < pixels.length; k += 4) sum = (sum * 31 + pixels[k]) % 1000003;
            return [document.getElementById("time").value, sum, svg.querySelector("path").getAttribute("d"),
                    document.querySelector("[data-chart=area] .median").getAttribute("x1")];
        }""")
        )

    play = view.locator("#play")
    assert state()[0] == "0"
    play.click()
    deadline = time.monotonic() + 10
    while state()[0] == "0" and time.monotonic() < deadline:
        view.wait_for_timeout(20)
    assert state()[0] != "0"
    assert play.text_content() == "Pause"
    play.click()
    assert play.text_content() == "Play"
    view.locator("#time").fill("0")
    states = [state()]
    for frame in range(1, FRAMES):
        view.locator("#time").fill(str(frame))
        states.append(state())
    for parts in list(zip(*states, strict=True))[:2]:
        assert len(set(parts)) == FRAMES
    assert len({parts[3] for parts in states}) == FRAMES
    assert len({parts[2] for parts in states}) > 2
    stopped = state()
    view.wait_for_timeout(150)
    assert state() == stopped
    assert view.locator("#clip option").count() == PATIENTS


def test_the_trainer_and_the_metric_can_be_chosen(view: object) -> None:
    def of(selector: str) -> str:
        return view.locator(selector).evaluate("element => element.innerHTML")

    assert view.locator("#gallery figure").count() == 6
    assert view.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    before = of("#gallery"), of("[data-chart=quality]")
    view.locator("#model").select_option("1")
    after = of("#gallery"), of("[data-chart=quality]")
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert view.locator("[data-chart=quality] title").all_text_contents()[0].startswith("Good: median")
    assert view.locator("#gallery path.reference").count() == view.locator("#gallery path.prediction").count() > 0
    view.locator("#prediction").uncheck()
    assert view.locator("#gallery path.prediction").count() == 0
    before = of("#structures")
    view.locator("#metric").select_option("1")
    assert of("#structures") != before
    assert "HD95, mm" in of("#structures")
    assert view.locator("#structures .dots").count() == 4 * 3


@pytest.fixture
def opened(chromium: object, tmp_path: Path) -> Iterator[object]:
    """Opens a page with other data inside; fails on errors in it."""
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    tab, complaints = context.new_page(), []
    tab.on("pageerror", lambda error: complaints.append(str(error)))

    def open_page(page: Path, change: Callable[[dict], None]) -> object:
        head, text, tail = re.split(r'(?<=id="data">)(.*?)(?=</script>)', page.read_text(), maxsplit=1, flags=re.DOTALL)
        change(data := json.loads(text))
        (tmp_path / "index.html").write_text(head + json.dumps(data).replace("<", "\\u003c") + tail)
        tab.goto((tmp_path / "index.html").as_uri())
        return tab

    yield open_page
    context.close()
    assert complaints == []


def test_14_trainers_and_12000_patients(page: Path, opened: object) -> None:
    """As many values in one plot do not fit the arguments of a call."""
    models, patients = 14, 12_000

    def enlarge(data: dict) -> None:
        data["models"] = [{"name": f"trainer {number}", "whole": True} for number in range(models)]
        data["structures"], data["metrics"] = ["LV"], data["metrics"][:1]
        data["metrics"][0]["values"] = [[[(k % 97) / 97 for k in range(patients)]] * models]
        data["cases"] = [f"case {k}" for k in range(10 * patients)]
        data["quality"] = ["Good"] * 10 * patients
        data["scores"] = [[(k % 89) / 89 for k in range(10 * patients)], *[[]] * (models - 1)]
        data["ranks"], data["clips"], data["gallery"] = [], [], [{}] * models
        data["ef"] = [[["p", 50, 51]]] * models

    view = opened(page, enlarge)
    assert view.locator("#structures path.dots").count() == models
    titles = view.locator("#structures title").all_text_contents()
    assert all(title.endswith(f"{patients} values") for title in titles)
    assert view.locator("[data-chart=quality] title").text_content().endswith(f"{10 * patients} values")


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


def test_an_absurd_ejection_fraction_is_a_mark_at_the_edge(page: Path, opened: object) -> None:
    """Errors of 2, 4 and 6 points, and an EF of -1000 %. One more is flagged, which a hollow point shows."""
    values = [
        ["a", 50, 52, ""],
        ["b", 60, 64, "prediction: cut"],
        ["c", 40, 46, ""],
        ["d", 55, -1000, ""],
        ["e", 45, None, ""],
    ]
    errors = np.array([2, 4, 6, -1055])

    def change(data: dict, of: list = values) -> None:
        data["ef"] = [of] * len(data["models"])

    view = opened(page, change)
    for chart in ("scatter", "bland"):
        figure = view.locator(f"[data-chart={chart}]")
        assert figure.locator("circle.point").count() == 3
        (title,) = figure.locator("path.beyond title").all_text_contents()
        assert title.startswith("d: ")
        assert figure.locator("figcaption").all_text_contents() == [
            "▲ 1 of 4 beyond the axes, drawn at their edge",
            "○ 1 of 4 flagged: not to be trusted",
        ]
        (title,) = figure.locator(".flagged title").all_text_contents()
        assert title.startswith("b: ") and title.endswith("(prediction: cut)")
        places = [
            float(value)
            for value in figure.locator("circle.point").evaluate_all(
                "points => points.map(point => point.getAttribute('cy'))"
            )
        ]
        assert max(places) - min(places) > 100
        box, edge = figure.locator("svg").bounding_box(), figure.locator("path.beyond").bounding_box()
        assert box["y"] < edge["y"] < box["y"] + box["height"]
    assert "4 of 5 patients" in view.locator("[data-chart=scatter]").text_content()
    text = view.locator("[data-chart=bland] svg").text_content()
    low, high = (errors.mean() + sign * 1.96 * errors.std(ddof=1) for sign in (-1, 1))
    assert f"bias {errors.mean():.1f} ↓" in text.replace("−", "-")
    assert f"+1.96 sd {high:.1f} ↑" in text and f"−1.96 sd {low:.1f} ↓" in text

    view = opened(page, lambda data: change(data, [[*point[:3], ""] for point in values[:3]]))
    assert view.locator(".beyond, .flagged, [data-chart=bland] figcaption").count() == 0
    # Errors of 4 and 2 sd of 2, upwards on the screen: the lines by the places of the points, whose errors are known.
    heights = {
        kind: view.locator(f"[data-chart=bland] {kind}").evaluate_all(
            "all => all.map(one => Number(one.getAttribute('cy') ?? one.getAttribute('y1')))"
        )
        for kind in ("circle.point", "line.mean", "line.limit")
    }
    a, b, c = heights["circle.point"]
    assert heights["line.mean"] == pytest.approx([b])
    assert heights["line.limit"] == pytest.approx([b + sign * 1.96 * (a - b) for sign in (-1, 1)])
    assert a - b == pytest.approx(b - c) and a > b
    text = view.locator("[data-chart=bland] svg").text_content()
    assert "bias 4.0" in text and "+1.96 sd 7.9" in text and "−1.96 sd 0.1" in text


def test_a_page_that_is_not_seen_yet_draws(view: object) -> None:
    """Its figures have no width; every number in what is drawn is one, and no radius is negative."""
    view.add_style_tag(content="figure { width: 0 }")
    view.evaluate("drawAll()")
    assert view.locator("[data-chart=ranks] circle").count() >= 2
    for radius in view.locator("circle").evaluate_all("all => all.map(one => Number(one.getAttribute('r')))"):
        assert radius > 0


def test_it_fits_a_phone(view: object) -> None:
    for width in (390, 1200):
        view.set_viewport_size({"width": width, "height": 844})
        view.wait_for_timeout(50)
        assert view.evaluate("document.documentElement.scrollWidth") <= width


def test_the_file_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert attributes(text, "src", "href") == ["#runs"]  # pictures come out of the page's data
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in text
    assert "<img src=x" not in text  # the name of a trainer is text
    assert "&lt;img src=x&gt;" in text


def test_numbers_of_the_page(films: Board) -> None:
    data = report.report_data(films, ["a", "b", "c"])
    assert data["metrics"][0]["values"][0][0] == [1] * PATIENTS  # LV Dice of the perfect one
    assert data["metrics"][0]["values"][0][2][2:] == [None, None]  # not validated
    assert [model["whole"] for model in data["models"]] == [True, True, False]
    (worst,) = (cases for name, cases in data["gallery"][1].items() if name == "Worst")
    scores = data["scores"][1]
    assert scores[data["cases"].index(worst[0])] == min(scores)
    assert set(data["quality"]) == {"Good", "Poor"}
    clip = data["clips"][0]
    rows = films.entries[1].evaluation.frames
    found = [row["prediction_lv_area_mm2"] for row in rows if row["case"] in clip["cases"]]
    assert clip["models"][1] == pytest.approx(found, abs=0.1)
    assert clip["reference"] == clip["models"][0]
    assert data["pictures"][clip["cases"][0]]["models"][0] == data["pictures"][clip["cases"][0]]["reference"]


def test_pictures_stop_at_their_bytes(films: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = report.report_data(films, ["a", "b", "c"])
    assert not everything["full"]
    monkeypatch.setattr(report, "PICTURE_BYTES", len(str(everything["pictures"])) // 2)
    data = report.report_data(films, ["a", "b", "c"])
    assert data["full"]
    assert 0 < len(str(data["pictures"])) <= report.PICTURE_BYTES * 1.02
    assert all(case in data["pictures"] for groups in data["gallery"] for cases in groups.values() for case in cases)
    assert all(case in data["pictures"] for clip in data["clips"] for case in clip["cases"])


def test_pictures_are_read_for_what_is_shown(films: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gallery of a trainer shows no outlines of others; nothing is read twice."""
    read = []
    monkeypatch.setattr(report, "CLIPS", 0)
    monkeypatch.setattr(report, "read_outlines", lambda path, dataset: read.append(path) or {"LV": "M0 0z"})
    data = report.report_data(films, ["a", "b", "c"])
    shown = {(model, case) for model, groups in enumerate(data["gallery"]) for of in groups.values() for case in of}
    assert {
        (model, case)
        for case, picture in data["pictures"].items()
        for model, paths in enumerate(picture["models"])
        if paths
    } == shown
    assert len(read) == len(set(read)) == len(shown) + len(data["pictures"])


def test_a_picture_keeps_its_shape_in_mm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of 0.5 mm across and 1.5 mm down; and a sequence is read once for all its frames."""
    values = np.arange(3 * 40 * 60, dtype=np.uint8).reshape(3, 40, 60)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 1.5, 1))
    sitk.WriteImage(image, str(tmp_path / "film.nii.gz"))
    sitk.WriteImage(image[..., 0], str(tmp_path / "map.nii.gz"))
    first = read_picture(tmp_path / "film.nii.gz", 1, tmp_path / "map.nii.gz", 480, 60)
    assert (first.width, first.height, first.aspect) == (60, 40, pytest.approx(60 * 0.5 / (40 * 1.5)))
    monkeypatch.setattr(sitk, "ReadImage", None)
    last = read_picture(tmp_path / "film.nii.gz", 3, tmp_path / "map.nii.gz", 480, 60)
    assert (last.aspect, last.source != first.source) == (first.aspect, True)


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
        model = Model(name, name, "nnUNetPlans", "2d", tmp_path, (0,), "whole", ())
        entries.append(Entry(model, {}, Evaluation(cases, ef, [], [], [], {}), Training(), Costs()))
    weights, scores = bootstrap_weights(500, 0, samples=100), rng.random((500, 10))
    split = Split({0: frozenset()}, {0: frozenset(patients)}, "0123456789ab")
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


def test_figures(films: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "shown_metrics", lambda _: [METRICS["nsd_2"]])  # one of five that are alike
    files = figures.write_figures(films, tmp_path / "one")
    assert {path.stem for path in files} == {"boxes_nsd_2", "ranks", "quality"}  # without ED and ES no EF
    assert all(path.read_bytes().startswith(b"%PDF") for path in files)
    for path in files:
        pixels = mpimg.imread(path.with_suffix(".png"))[..., :3]
        assert pixels.shape[1] == 300 * (4.5 if path.stem == "ranks" else 7.1)
        assert np.ptp(pixels, axis=2).max() > 0.3  # colour: dots, not axes alone
    figures.write_figures(films, tmp_path / "two")
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


def test_outlines_enclose_their_mask() -> None:
    """Shoelace over the path: a disk with a hole and a far pixel, to the area and place of the mask."""
    y, x = np.mgrid[:80, :100]
    distance = np.hypot(y - 40, x - 45)
    mask = (distance < 30) & (distance > 10)
    mask[2, 95] = True
    parts = [
        np.cumsum(np.array(re.findall(r"-?[\d.]+", part), float).reshape(-1, 2), axis=0)
        for part in svg_path(mask).split("M")[1:]
    ]
    assert len(parts) == 3
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - np.roll(p[:, 0], -1) * p[:, 1])) / 2 for p in parts]
    outer, hole, pixel = sorted(areas, reverse=True)
    assert outer - hole == pytest.approx(mask.sum() - 1, rel=0.02)
    assert pixel == pytest.approx(0.5, abs=0.3)  # a diamond through the middles of its sides
    big = parts[int(np.argmax(areas))]
    assert (big.min(axis=0) + big.max(axis=0)) / 2 == pytest.approx((45.5, 40.5), abs=0.3)  # pixel centres are at .5
    assert sum(map(len, parts)) < 120
    assert svg_path(np.zeros((5, 5), bool)) == ""


def test_short_names() -> None:
    assert short_names(["nnUNetTrainerViL_5epochs", "nnUNetTrainerLKMUNet_5epochs"]) == ["ViL", "LKMUNet"]
    assert short_names(["nnUNetTrainer", "nnUNetTrainerViL2"]) == ["nnUNetTrainer", "ViL2"]
    assert short_names(["nnUNetTrainerViL_5epochs"]) == ["ViL_5epochs"]
    assert short_names(["nnUNetTrainer_5epochs", "nnUNetTrainerViL_5epochs"]) == ["5epochs", "ViL_5epochs"]
