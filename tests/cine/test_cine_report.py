"""The page of a result: one file, no request, everything escaped; opened and used in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cine_results import LABELS, drawn, drawn_clip, drawn_result

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips.clip import Finding
from nnunet_echo.cine.masks import Masks
from nnunet_echo.cine.report import LIMIT_BYTES, TITLES, loop_data, number_rows, write_report
from nnunet_echo.cine.result import CineResult

pytest_plugins = ("cine_report",)  # the browser

GONE = "document.title='gone'"
EVIL = f'<img src=http://evil.example/x onerror="{GONE}"></script><script>{GONE}</script>'


def evil() -> CineResult:
    """Without a scale, with a bad beat, and with HTML in every text that could carry it."""
    masks, frames, _ = drawn()
    changed = np.stack(masks)
    beat = drawn_result().loops[0].beats[0].beat
    frame = changed[beat.es]
    rows = np.flatnonzero((frame == 1).any(axis=1))
    frame[rows[0] : (rows[0] + rows[-1]) // 2][frame[rows[0] : (rows[0] + rows[-1]) // 2] == 1] = 2
    clip = drawn_clip(frames, spacing=None).with_findings(Finding("scale_x", EVIL))
    return analyse(clip, changed, LABELS, view=EVIL, model={EVIL: EVIL})


def page(result: CineResult, path: Path) -> str:
    write_report(path, result)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    page(drawn_result(), path)
    return path


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page that fails on every request but that of the file, and on errors."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(("data:", "file:///")) else None)
    yield tab
    context.close()
    assert complaints == []


def test_page_names_nothing_outside(plain: Path) -> None:
    text = plain.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(src|href|action)\s*=\s*[\"'](?!data:)", text)
    assert "default-src 'none'" in text and "Research use, not a medical device." in text
    assert len(text) < LIMIT_BYTES


def test_every_number_is_there_or_its_reason(tmp_path: Path) -> None:
    for spacing in (2.0, None):
        result = drawn_result(spacing=spacing)
        rows = {row["number"]: row for row in number_rows(result)}
        assert set(rows) == set(result.numbers)
        text = page(result, tmp_path / f"{spacing}.html")
        for name, value in result.numbers.items():
            assert bool(rows[name]["value"]) == bool(np.isfinite(value)) == (rows[name]["refusal"] is None)
            if np.isnan(value):
                assert f'data-number="{name}"' in text and result.refusal_of(name).text in text
        assert "mL</dd>" not in text or spacing


def test_titles_cover_all_numbers_there_are() -> None:
    masks, frames, _ = drawn()
    others, pictures, _ = drawn("2CH")
    second = (drawn_clip(pictures), others, "2CH")
    result = analyse(drawn_clip(frames), masks, LABELS, view="4CH", second=second, smooth=masks)
    shown = [row["number"] for row in number_rows(result)]
    assert sorted(shown) == sorted(result.numbers) and set(TITLES) <= set(shown)


def test_texts_are_escaped(tmp_path: Path) -> None:
    text = page(evil(), tmp_path / "report.html")
    assert EVIL not in text and "<img" not in text and text.count("<script") == 2
    assert "&lt;img" in text


def test_texts_do_nothing_in_a_browser(tab: Any, tmp_path: Path) -> None:
    page(evil(), tmp_path / "report.html")
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_timeout(100)
    assert tab.title().startswith("Cine ")
    assert tab.locator("img").count() == 0
    assert "the long axis" in tab.locator("#beats tr.refused").first.inner_text()
    assert "not shown" in tab.locator("[data-number=edv_ml]").inner_text()
    assert "%" in tab.locator("[data-number=ef_percent] dd").first.inner_text()


def state(tab: Any) -> dict[str, Any]:
    return tab.evaluate("""() => {
        const canvas = document.querySelector("canvas");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let sum = 0;
        for (let k = 0; k < pixels.length; k += 4) sum = (sum * 31 + pixels[k]) % 1000003;
        return {sum, lines: [...document.querySelectorAll(".frame path")].map((line) => line.getAttribute("d")).join(),
          mark: Number(document.querySelector("svg .now").getAttribute("x1")),
          place: Number(document.querySelector("input[type=range]").value),
          text: document.querySelector(".place").textContent};
    }""")


def move(tab: Any, frame: int) -> dict[str, Any]:
    tab.eval_on_selector("input[type=range]", f"e => {{ e.value = {frame}; e.dispatchEvent(new Event('input')); }}")
    tab.wait_for_timeout(60)
    return state(tab)


def test_picture_outlines_and_mark_move_together(tab: Any, plain: Path) -> None:
    tab.goto(plain.as_uri())
    first, later = move(tab, 3), move(tab, 12)
    assert all(first[name] != later[name] for name in first)
    assert later["mark"] > first["mark"]
    assert later["text"] == "Frame 13 of 96, 0.400 s"
    tab.locator(".outlines").uncheck()
    assert state(tab)["lines"].strip(",") == ""


def test_a_click_on_the_curve_moves_the_loop(tab: Any, plain: Path) -> None:
    tab.goto(plain.as_uri())
    move(tab, 0)
    box = tab.locator("figure svg").bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2)
    assert 60 < state(tab)["place"] < 72


def test_it_plays_and_stops(tab: Any, plain: Path) -> None:
    tab.goto(plain.as_uri())
    move(tab, 0)
    tab.locator(".play").click()
    for _ in range(100):  # the page's policy allows no wait_for_function
        tab.wait_for_timeout(50)
        if state(tab)["place"] >= 3:
            break
    assert state(tab)["place"] >= 3
    tab.locator(".play").click()
    assert tab.locator(".play").inner_text() == "Play"


def test_curves_can_be_chosen_and_beats_are_marked(tab: Any, plain: Path) -> None:
    tab.goto(plain.as_uri())
    beats = drawn_result().loops[0].beats
    assert tab.locator("figure circle.es").count() == len(beats)
    assert tab.locator("#beats tbody tr").count() == len(beats)
    before = tab.locator("figure .curve").get_attribute("d")
    tab.locator("select.curve").select_option("lv_volume_ml")
    assert tab.locator("figure .curve").get_attribute("d") != before
    assert "mL" in tab.locator("figure").inner_text()


def test_pages_of_odd_results_open(tab: Any, tmp_path: Path) -> None:
    masks, frames, _ = drawn()
    others, pictures, _ = drawn("2CH")
    second = (drawn_clip(pictures), others, "2CH")
    odd = {
        "no times": drawn_result(fps=None),
        "no ventricle": analyse(drawn_clip(frames[:4]), masks[:4], {"RV": 1}),
        "one frame": analyse(drawn_clip(frames[:1]), masks[:1], LABELS),
        "two views": analyse(drawn_clip(frames), masks, {"LV": 1}, view="4CH", second=second, smooth=masks),
    }
    for name, result in odd.items():
        page(result, tmp_path / f"{name}.html")
        tab.goto((tmp_path / f"{name}.html").as_uri())
        assert tab.locator("canvas").count() == len(result.loops)
        assert tab.locator(".place").first.inner_text().startswith("Frame 1 of")
    assert tab.locator("figure .plain").count() == 1


def test_pictures_of_the_page_are_the_sector_alone() -> None:
    import base64
    import io

    from PIL import Image

    data = loop_data(drawn_result().loops[0], 4_000_000)
    with Image.open(io.BytesIO(base64.b64decode(data["pictures"][0].split(",")[1]))) as picture:
        grey = np.asarray(picture.convert("L")).astype(int)
    assert grey.max() > 100 and grey[2:9, 2:24].max() < 12  # WebP leaves a trace of nothing


def test_long_clips_stay_below_the_limit() -> None:
    loop = drawn_result().loops[0]
    noisy = np.random.default_rng(0).integers(0, 255, (450, 240, 300), np.uint8)
    clip = drawn_clip(noisy)
    mask = np.zeros((240, 300), np.uint8)
    mask[100:200, 100:200] = 1
    curve = replace(loop.curve, values={name: np.resize(v, 450) for name, v in loop.curve.values.items()})
    long = replace(loop, clip=clip, masks=Masks([mask] * 450), sector=np.ones((240, 300), bool), curve=curve)
    data = loop_data(long, 1_500_000)
    assert len(data["pictures"]) == len(data["frames"]) == len(data["outlines"])
    assert data["frames"][0] == 0 and 20 < len(data["frames"]) < 200
    assert len(data["curves"]["lv_area_mm2"]) == 450
    assert len(json.dumps(data)) < 1_600_000
    calm = loop_data(replace(long, clip=drawn_clip(np.full((450, 240, 300), 9, np.uint8))), 1_500_000)
    assert calm["frames"] == list(range(0, 450, 2)) and len(calm["pictures"]) == 225
