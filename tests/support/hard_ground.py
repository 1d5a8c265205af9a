"""Small phantom downloads of every kind, with pictures that are quickly drawn, for the tests of damages and kills.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import held
import pytest
from camus_download import tree
from ted_download import plain_picture

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.camus.phantom import write_camus, write_camus_2019
from nnunet_echo.dataset_conversion.echonet import phantom as phantom_echonet
from nnunet_echo.dataset_conversion.echonet.phantom import write_echonet
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.phantom import cine as phantom_cine

pytest_plugins = ("camus_download",)  # its fixture raw


@dataclass(frozen=True)
class Source:
    """A phantom download: how it is written, converted, and what its files hold of a case, read without our reader."""

    write: Callable[[Path], None]
    command: tuple[str, ...]
    held: Callable[[Path, str], held.Pair]


CAMUS = partial(write_camus, patients=4, seed=3, spacing_mm=3.0)
ECHONET = partial(write_echonet, videos=8, seed=18, oddities=False, workers=1)
TED = partial(write_ted, patients=3, seed=3, spacing_mm=3.0)
CINES = ("camus", "--mode", "half_sequence")
SOURCES = {
    "camus": Source(partial(CAMUS, half_sequence=False), ("camus",), held.by_camus),
    "camus cines": Source(CAMUS, CINES, held.by_camus),
    "camus sparse cines": Source(CAMUS, (*CINES, "--labels", "ed_es"), held.by_sparse_camus),
    "camus 2019": Source(partial(write_camus_2019, patients=4, seed=3, spacing_mm=3.0), ("camus",), held.by_camus),
    "echonet": Source(ECHONET, ("echonet",), held.by_echonet),
    "echonet clips": Source(ECHONET, ("echonet", "--mode", "clip"), held.by_echonet),
    "ted": Source(TED, ("ted",), held.by_ted),
    "ted frames": Source(TED, ("ted", "--mode", "frames"), held.by_ted),
}


@dataclass(frozen=True)
class Undamaged:
    """A phantom download as it was written, and the hashes of its conversion's images and masks by name."""

    folder: Path
    images: dict[str, str]


@pytest.fixture(scope="session")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undamaged]:
    """The phantom of each name in SOURCES, written when it is first asked for."""

    @cache
    def written(name: str) -> Undamaged:
        folder, raw = tmp_path_factory.mktemp("hard_ground") / "source", tmp_path_factory.mktemp("raw")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(phantom_cine, "ultrasound", plain_picture)
            patch.setattr(phantom_echonet, "ultrasound", plain_picture)
            SOURCES[name].write(folder)
        convert(SOURCES[name], folder, raw)
        return Undamaged(folder, images(raw))

    return written


def convert(source: Source, folder: Path, raw: Path, *options: str) -> int:
    dataset, *mode = source.command
    return main(["convert", dataset, str(folder), *mode, "--raw", str(raw), "--workers", "1", *options])


def images(raw: Path) -> dict[str, str]:
    """Hash of each image and mask by its name without folder: a patient that no list names may leave the test set."""
    found = {
        re.sub(r".*/(image|label)sT[rs]/", r"\1 ", path): digest
        for path, digest in tree(raw).items()
        if digest and path.endswith(".nii.gz")
    }
    return {name: digest for name, digest in found.items() if name.startswith(("image ", "label "))}
