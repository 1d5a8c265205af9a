"""The report about cines of beating hearts.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.leaderboard.board import Board, leaderboard
from nnunet_echo.leaderboard.report import write_report
from nnunet_echo.phantom.cine import render

FRAMES, PATIENTS, SPACING_MM = 6, 4, 2.0

BAD = "nnUNetTrainer<img src=x>_a&b"  # a folder may be called so

DATASET_JSON = {
    "labels": {"background": 0, "LV": 1, "MYO": 2, "LA": 3},
    "file_ending": ".nii.gz",
    "channel_names": {"0": "us"},
    "case_id_pattern": r"(?P<patient>p\d)_(?P<view>4CH)_(?P<frame>\d+)",
}


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM, SPACING_MM))
    sitk.WriteImage(image, str(path), True)


@pytest.fixture(scope="session")
def cine_board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Four beating hearts of six frames, two folds; one trainer is a pixel off, one has a single fold."""
    folder = tmp_path_factory.mktemp("cines")
    raw, results = folder / "raw" / "Dataset752_CINES", folder / "results" / "Dataset752_CINES"
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


@pytest.fixture(scope="session")
def page(cine_board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    write_report(cine_board, out)
    return out / "index.html"


@pytest.fixture(scope="session")
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
