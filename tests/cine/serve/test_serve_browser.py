"""The local page in Chromium: a clip is dropped, its progress seen, the report shown, and nothing else is asked for."""

from __future__ import annotations

import base64
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cine_results import drawn_dicom
from serving import LIMIT, measure_drawn

from nnunet_echo.cine.serve.server import PageServer, serving

pytest_plugins = ("cine_report", "serving")  # the browser
pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=\"document.title='gone'\">"
DROP = """([selector, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.querySelector(selector).dispatchEvent(
      new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


def measure(paths: list[Path], **options: Any) -> Any:
    if b"evil" in paths[0].read_bytes()[:10]:
        raise ValueError(f"clip_1: {EVIL}")
    return measure_drawn(paths, wait_s=2.0, **options)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return drawn_dicom(tmp_path_factory.mktemp("loop") / "loop.dcm").read_bytes()


@pytest.fixture
def server(temporary: Path) -> Iterator[PageServer]:
    with serving(measure, LIMIT) as server:
        yield server


@pytest.fixture(params=["light"])
def tab(chromium: Any, server: PageServer, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page; fails on requests to anything but the server, on errors, and on what a policy stopped."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, color_scheme=request.param)
    tab, complaints, asked = context.new_page(), [], []
    context.on("request", lambda r: asked.append(r.url))
    tab.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(server.url)
    tab.asked = asked
    yield tab
    context.close()
    assert complaints == []
    outside = [url for url in asked if not url.startswith((server.url, "data:"))]
    assert asked and outside == []


def drop(tab: Any, name: str, data: bytes, place: int = 0) -> None:
    tab.evaluate(DROP, [f"[data-place='{place}'] .drop", name, base64.b64encode(data).decode()])


def test_a_dropped_clip_becomes_a_report(tab: Any, server: PageServer, loop: bytes, tmp_path: Path) -> None:
    assert "Research use, not a medical device." in tab.locator("body").inner_text()
    drop(tab, "Zzyzx.dcm", loop)
    assert "Zzyzx.dcm" in tab.locator("[data-place='0'] .what").inner_text()
    tab.keyboard.press("Tab")
    tab.locator("#measure").press("Enter")
    shown = []
    while not tab.locator("#result").is_visible():
        shown.append(tab.evaluate("['count', 'told'].map((id) => document.getElementById(id).textContent)"))
        tab.wait_for_timeout(50)
        assert len(shown) < 1000
    counts = [int(found[1]) for count, _ in shown if (found := re.fullmatch(r"Frame (\d+) of 96", count))]
    assert len(set(counts)) > 3 and counts == sorted(counts)
    assert any(re.fullmatch(r"Outlining the heart, \d0 %", told) for _, told in shown)
    assert tab.locator("[aria-live=polite]").inner_text() == "The report is ready."
    assert tab.evaluate("document.activeElement.id") == "finished"
    report = tab.frame_locator("iframe[sandbox='allow-scripts']")
    assert "%" in report.locator("[data-number=ef_percent] dd").first.inner_text()
    report.locator("button.play").click()  # its script runs
    report.locator("button.play[aria-pressed=true]").wait_for()
    assert report.locator("svg .curve").count() == 1
    frame = tab.frames[1]
    assert frame.evaluate("self.origin") == "null"
    with tab.expect_download() as download:
        tab.locator("#archive").click()
    download.value.save_as(tmp_path / "result.zip")
    with zipfile.ZipFile(tmp_path / "result.zip") as files:
        assert any(name.endswith("/result.json") for name in files.namelist())
    assert not any("Zzyzx" in url for url in tab.asked)
    tab.reload()  # the result is found again
    tab.locator("#result").wait_for(timeout=10_000)
    tab.locator("#again").click()
    tab.locator("#study").wait_for()
    assert not tab.locator("#result").is_visible() and tab.locator(".drop.full").count() == 0


def test_the_report_opens_alone(tab: Any, loop: bytes) -> None:
    drop(tab, "loop.dcm", loop)
    tab.locator("#measure").click()
    tab.locator("#result").wait_for(timeout=60_000)
    complaints: list[str] = []
    with tab.context.expect_page() as opened:
        tab.locator("#alone").click()
    alone = opened.value
    alone.on("console", lambda message: complaints.append(message.text))
    alone.reload()
    alone.locator("svg .curve").wait_for()
    assert alone.evaluate("self.origin") == "null" and complaints == []


def test_a_script_in_a_report_does_not_run(tab: Any, server: PageServer, loop: bytes) -> None:
    """If an escape were missing one day: what is not the report's own is stopped by its policy."""
    drop(tab, "loop.dcm", loop)
    tab.locator("#measure").click()
    tab.locator("#result").wait_for(timeout=60_000)
    (job,) = server.jobs._jobs.values()
    page = job.folder / "report.html"
    bad = "<script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">"
    evil = re.sub("<meta http-equiv.*?>", "", page.read_text()).replace("<main>", f"<main>{bad}")
    page.write_text(evil)
    other = tab.context.new_page()  # whose complaints are not counted
    other.goto(f"{server.url}jobs/{job.name}/report.html")
    other.wait_for_timeout(300)
    assert other.title().startswith("Cine ")


def test_why_it_failed_is_text(tab: Any) -> None:
    drop(tab, "x.dcm", b"evil")
    tab.locator("#measure").click()
    trouble = tab.locator("#trouble")
    trouble.wait_for()
    assert trouble.inner_text() == f"Clip 1: {EVIL}" and trouble.get_attribute("role") == "alert"
    tab.wait_for_timeout(100)
    assert tab.locator("main img").count() == 0 and tab.title() == "From a clip to ejection fraction"


def test_what_cannot_be_measured_is_said_at_once(tab: Any, loop: bytes) -> None:
    trouble, measure = tab.locator("#trouble"), tab.locator("#measure")

    def said(text: str) -> None:
        measure.click()
        trouble.filter(has_text=text).wait_for(timeout=5000)

    said("Give a clip first.")
    drop(tab, "loop.mhd", loop)
    said("Save the clip as .mha")
    drop(tab, "loop.dcm", b"x" * (LIMIT + 1))
    said("at most 3.0 MB are taken")
    drop(tab, "loop.dcm", loop)
    drop(tab, "other.dcm", loop, place=1)
    tab.locator("[data-place='1'] select").select_option("4CH")
    said("choose 4CH for one, 2CH for the other")
    tab.locator("[data-place='1'] .remove").click()
    assert not tab.locator("[data-place='1'] .remove").is_visible()
    tab.locator("summary").click()
    tab.locator("#rows").fill("0.3")
    said("height and width are needed")
    tab.locator("#columns").fill("-1")
    said("Pixel width: must be a number above 0")
    tab.locator("#columns").fill("0.4")
    tab.get_by_label("Region").fill("0")
    said("Region: must be a number above 0")
    tab.get_by_label("Region").fill("2")
    assert tab.evaluate("[wanted().content.region, wanted().content.spacing]") == [2, [0.3, 0.4]]
    assert not any("jobs" in url for url in tab.asked)


def test_cancel(tab: Any, server: PageServer, loop: bytes) -> None:
    tab.locator("input[type=file]").first.set_input_files(
        {"name": "loop.dcm", "mimeType": "application/dicom", "buffer": loop}
    )
    tab.locator("#measure").click()
    tab.locator("#count", has_text="Frame").wait_for()
    tab.locator("#cancel").click()
    tab.locator("#study").wait_for()
    tab.wait_for_timeout(300)
    assert server.jobs._jobs == {} and not tab.locator("#trouble").is_visible()


@pytest.mark.parametrize("tab", ["light", "dark"], indirect=True)
def test_texts_can_be_read(tab: Any, loop: bytes) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.1, 1.4.3), in both schemes."""
    drop(tab, "loop.dcm", loop)
    found = tab.evaluate("""() => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
          .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (node) => {
        for (; node; node = node.parentElement) {
          const colour = getComputedStyle(node).backgroundColor;
          if (!/, 0\\)$/.test(colour)) return colour;
        }
        return "rgb(255, 255, 255)";
      };
      return [...document.querySelectorAll("h1, .notice, .note, label, legend small, button, summary, .what, .button")]
        .filter((node) => node.offsetParent).map((node) => {
          const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
          return [node.textContent.slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
        });
    }""")
    assert len(found) > 10
    assert [each for each in found if each[1] < 4.5] == []
