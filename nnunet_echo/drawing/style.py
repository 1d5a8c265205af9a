"""Colours and words that are the same in every picture: page, figures, demo.

Colours remain apart for colour-blind readers (Okabe and Ito, Color Universal Design, 2008).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

BLUE, RED, GREY = "#0072B2", "#D55E00", "#6e7781"
GRID = "#e6eaee"
# MYO is drawn as LV_EPI, the outline around it, and has its colour.
STRUCTURE_COLOURS = {"LV": "#E69F00", "LV_EPI": "#56B4E9", "MYO": "#56B4E9", "LA": "#CC79A7"}
OTHER_COLOURS = ("#009E73", "#F0E442", RED, BLUE)
# Of matplotlib: text stays text in PDF, and a dollar sign in a name begins no formula.
FIGURE_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# The axes of plots of EF in % and of its error end here at most: one absurd value would squeeze all others.
EF_SHOWN = {"value": (-20, 120), "error": (-60, 60)}


def structure_colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each structure; those that are not the heart's take turns.

    >>> structure_colours(["LV", "RV"])
    {'LV': '#E69F00', 'RV': '#009E73'}
    """
    others = cycle(OTHER_COLOURS)
    return {name: STRUCTURE_COLOURS.get(name) or next(others) for name in names}


def short_names(names: Sequence[str]) -> list[str]:
    """Trainers without "nnUNetTrainer" in front, and without the words at the end that all of them share.

    >>> short_names(["nnUNetTrainerViL_5epochs", "nnUNetTrainerLKMUNet_5epochs"])
    ['ViL', 'LKMUNet']
    """
    short = [name.removeprefix("nnUNetTrainer").lstrip("_") or name for name in names]
    shared = os.path.commonprefix([name[::-1] for name in short])[::-1]
    shared = shared[shared.index("_") :] if "_" in shared and len(names) > 1 else ""
    return [name.removesuffix(shared) or name for name in short]
