"""A second download of each dataset, which conversion must not mistake for the first.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from camus_download import tree
from hard_ground import Undamaged
from ted_download import plain_picture

from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.echonet import phantom as phantom_echonet
from nnunet_echo.dataset_conversion.echonet.phantom import write_echonet
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.phantom import cine as phantom_cine

pytest_plugins = ("hard_ground",)

# The same names of cases (camus, ted) with other pictures, or other cases (echonet).
OTHERS = {
    "camus": partial(write_camus, patients=4, seed=4, spacing_mm=3.0, half_sequence=False),
    "echonet": partial(write_echonet, videos=8, seed=19, oddities=False, workers=1),
    "ted": partial(write_ted, patients=3, seed=4, spacing_mm=3.0),
}
EACH = ["camus", "echonet", pytest.param("ted", marks=pytest.mark.slow)]
Get = Callable[[str], Undamaged]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def written(name: str) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(phantom_cine, "ultrasound", plain_picture)
            patch.setattr(phantom_echonet, "ultrasound", plain_picture)
            OTHERS[name](tmp_path / "other")
        return tmp_path / "other"

    return written


def same_but_for_the_place(first: Path, second: Path) -> bool:
    trees = [
        {name: digest for name, digest in tree(folder).items() if not name.endswith("conversion_report.json")}
        for folder in (first, second)
    ]
    return trees[0] == trees[1]
