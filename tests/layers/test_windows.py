"""Windows of a feature map: which pixels they hold, and that they are put back."""

from __future__ import annotations

import pytest
import torch

from nnunet_echo.layers.windows import merge_windows, partition_windows


def test_windows_hold_neighbours_and_the_released_ones_a_dilated_grid() -> None:
    pixels = torch.arange(24.0).view(1, 1, 4, 6)
    assert partition_windows(pixels, (2, 3))[1, 0].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert partition_windows(pixels, (2, 3), strided=True)[1, 0].tolist() == [[1, 4], [13, 16]]


@pytest.mark.parametrize(("size", "window"), [((10, 7), (4, 3)), ((6, 9, 5), (2, 4, 5)), ((4, 4), (4, 4))])
def test_windows_are_put_back(size: tuple[int, ...], window: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    assert torch.equal(merge_windows(partition_windows(x, window), size), x)


def test_strided_windows_are_put_back_and_refuse_a_rest() -> None:
    x = torch.randn(2, 3, 6, 8)
    assert torch.equal(merge_windows(partition_windows(x, (3, 2), strided=True), (6, 8), strided=True), x)
    with pytest.raises(ValueError, match="multiple of the stride"):
        partition_windows(x, (4, 2), strided=True)
