"""Pictures of frames."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.figure import Figure
from PIL import Image

from nnunet_echo.drawing.pictures import comparison_figure, read_picture
from nnunet_echo.drawing.style import structure_colours


def test_a_picture_keeps_its_shape_in_mm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of 0.5 mm across and 1.5 mm down; and a sequence is read once for all its frames."""
    values = np.arange(3 * 40 * 60, dtype=np.uint8).reshape(3, 40, 60)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 1.5, 1))
    sitk.WriteImage(image, str(tmp_path / "cine.nii.gz"))
    sitk.WriteImage(image[..., 0], str(tmp_path / "map.nii.gz"))
    first = read_picture(tmp_path / "cine.nii.gz", 1, tmp_path / "map.nii.gz", 480, 60)
    assert (first.width, first.height, first.aspect) == (60, 40, pytest.approx(60 * 0.5 / (40 * 1.5)))
    monkeypatch.setattr(sitk, "ReadImage", None)
    last = read_picture(tmp_path / "cine.nii.gz", 3, tmp_path / "map.nii.gz", 480, 60)
    assert (last.aspect, last.source != first.source) == (first.aspect, True)


def test_grey_runs_from_the_least_value_to_the_most(tmp_path: Path) -> None:
    file = tmp_path / "image.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.tile(np.uint8(np.linspace(100, 150, 60)), (40, 1))), str(file))
    source = read_picture(file, None, file, 480, 90).source.removeprefix("data:image/webp;base64,")
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("L"))
    assert grey.min() < 10 and grey.max() > 245


def drawn(spacing: tuple[float, float] = (1.0, 1.0)) -> Figure:
    """An LV of which the prediction has half, a ring around it that is right, on 40 x 80 pixels."""
    reference = np.zeros((40, 80), np.uint8)
    reference[10:30, 20:60], reference[15:25, 30:50] = 2, 1
    prediction = np.where((np.arange(80) >= 40) & (reference == 1), 0, reference)
    structures = {"LV": (1,), "MYO": (2,), "LV_EPI": (1, 2)}
    return comparison_figure(reference, reference, prediction, structures, spacing=spacing, title="$p_1$")


def test_a_comparison_has_outlines_and_dice_of_both_sides() -> None:
    figure = drawn()
    (axes,) = figure.axes
    assert axes.get_title() == "$p_1$" and not axes.title.get_parse_math()
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for line in axes.lines:
        found.setdefault((line.get_color(), line.get_linestyle()), []).append(line.get_xydata())
    colours = structure_colours(["LV", "LV_EPI"])
    assert set(found) == {(colour, style) for colour in colours.values() for style in ("--", "-")}
    (reference,), (prediction,) = (found[colours["LV"], style] for style in ("--", "-"))
    assert (reference[:, 0].max(), prediction[:, 0].max()) == (50, 40)
    assert axes.images[0].get_extent() == [0, 80, 40, 0]  # pixel centres at .5, as the outlines have them
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "LV, Dice 0.67",
        "MYO, Dice 1.00",
        "reference",
        "prediction",
    ]
    handles = figure.legends[0].get_lines()
    assert [handle.get_color() for handle in handles[:2]] == [colours["LV"], colours["LV_EPI"]]
    assert [handle.get_linestyle() for handle in handles[2:]] == ["--", "-"]


def test_a_comparison_has_the_shape_of_the_frame_in_mm() -> None:
    """Pixels twice as high as wide make 40 x 80 of them a square."""
    figure = drawn((2.0, 1.0))
    assert figure.axes[0].get_aspect() == 2
    assert figure.get_size_inches().tolist() == pytest.approx([5, 5 + 0.75])
