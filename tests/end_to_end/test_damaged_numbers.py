"""300 damaged clips of a phantom heart: where nothing says so, the ejection fraction is that of the undamaged clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clip_files import write_clip
from damaged_clips import FILES, damaged_clips
from trained_phantom import beating_loop, numbers_of, write_phantom_model

from nnunet_echo.cine.model import CineModel

pytestmark = pytest.mark.slow
pytest_plugins = ("trained_phantom",)

POINTS = 1.0
AREA = 0.10  # of the ventricle in any frame, as a share of it


@pytest.mark.parametrize("name", FILES)
def test_damage_that_nobody_sees_moves_no_number(tmp_path: Path, name: str, phantom_network: CineModel) -> None:
    frames = beating_loop()[0]
    (tmp_path / "whole").mkdir()
    write_clip(tmp_path / "whole" / name, frames)
    ef, area, known = numbers_of(phantom_network, tmp_path / "whole" / name)
    assert ef > 20
    for clip in damaged_clips(tmp_path, name, frames):
        if clip.found == "silent":
            other_ef, other_area, said = numbers_of(phantom_network, clip.path)
            moved = abs(other_ef - ef), float(np.nanmax(np.abs(other_area / area - 1)))
            assert said == known, (clip.seed, clip.damage, said ^ known)
            assert moved[0] < POINTS and moved[1] < AREA, (clip.seed, clip.damage, moved)


def test_the_network_behind_the_numbers_is_the_same_on_any_number_of_threads(
    tmp_path: Path, phantom_model: Path
) -> None:
    before, trained = torch.get_num_threads(), [phantom_model]
    other = 2 if before == 1 else 1
    try:
        torch.set_num_threads(other)
        trained.append(write_phantom_model(tmp_path / "again"))
        assert torch.get_num_threads() == other
    finally:
        torch.set_num_threads(before)
    one, two = (torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False) for folder in trained)
    torch.testing.assert_close(one["network_weights"], two["network_weights"], rtol=0, atol=0)
