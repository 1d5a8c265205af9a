"""nnunet-echo: Mamba and Vision-LSTM networks for cardiac ultrasound as a plugin of stock nnU-Net v2.

The contents page. A name is imported when it is first asked for, so that `import nnunet_echo` stays instant and cannot
fail: PyTorch imports this module whenever it is imported itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_echo.dataset_conversion import convert as convert
    from nnunet_echo.evaluation.evaluate import evaluate as evaluate
    from nnunet_echo.evaluation.left_ventricle.volume import lv_shape as lv_shape
    from nnunet_echo.evaluation.left_ventricle.volume import lv_volumes as lv_volumes
    from nnunet_echo.leaderboard import leaderboard as leaderboard
    from nnunet_echo.networks import create_network as create_network
    from nnunet_echo.networks import from_upstream as from_upstream
    from nnunet_echo.networks import list_networks as list_networks

__version__ = "0.1.0"

_CONTENTS = {
    "create_network": "nnunet_echo.networks",
    "from_upstream": "nnunet_echo.networks",
    "list_networks": "nnunet_echo.networks",
    "convert": "nnunet_echo.dataset_conversion",
    "evaluate": "nnunet_echo.evaluation.evaluate",
    "leaderboard": "nnunet_echo.leaderboard",
    "lv_shape": "nnunet_echo.evaluation.left_ventricle.volume",
    "lv_volumes": "nnunet_echo.evaluation.left_ventricle.volume",
}

__all__ = ["__version__", *_CONTENTS]


def __getattr__(name: str) -> object:  # PEP 562
    if name not in _CONTENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_CONTENTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_CONTENTS})
