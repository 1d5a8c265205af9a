"""Pictures of frames: small enough for one HTML file, or as a figure with the outlines of two segmentations."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray
from PIL import Image

from nnunet_echo.drawing.outlines import Structures, drawn_structures, outline
from nnunet_echo.drawing.style import GREY, structure_colours
from nnunet_echo.evaluation.metrics import METRICS, MaskPair

WIDTH_IN = 5.0  # inches, of a figure of one frame
LINES: dict[str, Literal["dashed", "solid"]] = {"reference": "dashed", "prediction": "solid"}


@dataclass(frozen=True)
class Picture:
    """A frame: `source` is a data URL; `width`, `height` in pixels of its labels, `aspect` = width / height in mm."""

    source: str
    width: int
    height: int
    aspect: float


def read_picture(path: Path, frame: int | None, reference: Path, side: int, quality: int) -> Picture:
    """The image of a case, its grey values from least to most, reduced to at most `side` pixels on its longer side.

    `frame`, from 1, is that of a sequence in `path`. Outlines lie on the grid of the label map `reference`, which shows
    the same field of view, but may be finer than a sequence that was resized. `quality` is that of WebP.
    """
    values = _pixels(path, path.stat().st_mtime_ns)
    values = (values if frame is None else values[frame - 1]).astype(float)
    low, high = values.min(), values.max()
    grey = Image.fromarray(np.uint8((values - low) * (255 / max(high - low, 1e-9))))
    grey.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    grey.save(file, "WEBP", quality=quality, method=6)
    source = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    grid = sitk.ImageFileReader()
    grid.SetFileName(str(reference))
    grid.ReadImageInformation()
    (width, height), (across, down) = grid.GetSize()[:2], grid.GetSpacing()[:2]
    return Picture(source, width, height, width * across / (height * down))


@lru_cache(maxsize=1)  # the frames of a sequence are drawn one after another
def _pixels(path: Path, written: int) -> ndarray:
    return np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def comparison_figure(
    image: ndarray,
    reference: ndarray,
    prediction: ndarray,
    structures: Structures,
    *,
    spacing: tuple[float, float],
    title: str = "",
) -> Figure:
    """A frame with the outlines of the reference (dashed) and of the prediction (solid), as in the report.

    `image`, and the label maps `reference` and `prediction`, are (H, W), pixels `spacing` = (row, column) apart;
    `structures` maps names to label values. The legend has the Dice of each, LV_EPI left out, of which MYO is a part.

    >>> labels = np.pad(np.ones((10, 20), np.uint8), 5)
    >>> figure = comparison_figure(labels, labels, labels, {"LV": (1,)}, spacing=(1.0, 1.0))
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['LV, Dice 1.00', 'reference', 'prediction']
    """
    (height, width), (down, across) = image.shape, spacing
    figure = Figure(figsize=(WIDTH_IN, WIDTH_IN * height * down / (width * across) + 0.75), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image, cmap="gray", extent=(0, width, height, 0), aspect=down / across)
    colours = structure_colours(structures)
    for side, labels in (("reference", reference), ("prediction", prediction)):
        for name, values in drawn_structures(structures).items():
            for line in outline(np.isin(labels, values)):
                axes.plot(*line.T, color=colours[name], linestyle=LINES[side], linewidth=1.2)
    handles = []
    for name, values in structures.items():
        if name != "LV_EPI":
            pair = MaskPair(np.isin(prediction, values), np.isin(reference, values), spacing)
            label = f"{name}, Dice {METRICS['dice'].compute(pair):.2f}"
            handles.append(Line2D([], [], color=colours[name], label=label))
    handles += [Line2D([], [], color=GREY, linestyle=style, label=side) for side, style in LINES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_axis_off()
    return figure
