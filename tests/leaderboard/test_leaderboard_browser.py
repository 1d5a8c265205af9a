"""The report, opened and used in a browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cine_report import BAD, FRAMES, PATIENTS

pytest_plugins = ("cine_report",)


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


def test_a_cine_plays(view: object) -> None:
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


def test_14_trainers_and_12000_patients(page: Path, opened: object) -> None:
    """As many values in one plot do not fit the arguments of a call."""
    models, patients = 14, 12_000

    def enlarge(data: dict) -> None:
        data["models"] = [{"name": f"trainer {number}", "complete": True} for number in range(models)]
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
