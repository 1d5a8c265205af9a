"""How large a pixel is, and which part of the picture shows tissue: the ultrasound regions of a DICOM file.

Each region has its own calibration. Only one of tissue in two dimensions, in cm along both axes, is a scale of the
heart, and only if it can be true: it lies in the picture, and its pixels have the size of an echo's.
Sources: DICOM PS3.3, C.8.5.5 (US Region Calibration), C.8.5.5.1.1 (spatial formats), .1.2 (data types), .1.15 (units).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_echo.cine.clips.clip import ClipError, Finding

TWO_D, M_MODE, SPECTRAL = 1, 2, 3  # RegionSpatialFormat (0018,6012)
TISSUE, COLOUR_FLOW, PW_DOPPLER, CW_DOPPLER = 1, 2, 3, 4  # RegionDataType (0018,6014)
CENTIMETRES = 3  # PhysicalUnitsXDirection, PhysicalUnitsYDirection (0018,6024 and 6026)
LIMITS_MM = (0.05, 2.0)
_LEAST_SHARE = 0.02  # of the picture; smaller tissue regions are thumbnails and grey bars
_KINDS = {M_MODE: "an M-mode trace", SPECTRAL: "spectral Doppler"}


@dataclass(frozen=True)
class Region:
    """One item of SequenceOfUltrasoundRegions (0018,6011): rows y0 to y1 and columns x0 to x1, the last ones included.

    `delta` are the heights and widths of a pixel in the regions' `units`, each (rows, columns).
    """

    spatial_format: int
    data_type: int
    y0: int
    y1: int
    x0: int
    x1: int
    units: tuple[int, int]
    delta: tuple[float, float]

    @property
    def area(self) -> int:
        """Its pixels."""
        return max(0, self.y1 - self.y0 + 1) * max(0, self.x1 - self.x0 + 1)

    def lies_in(self, shape: tuple[int, int]) -> bool:
        """Whether it lies within H x W pixels. Some scanners write the first row and column after the region."""
        return 0 <= self.y0 < self.y1 <= shape[0] and 0 <= self.x0 < self.x1 <= shape[1]

    def box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """y0, y1, x0, x1 as slices take them."""
        return self.y0, min(self.y1 + 1, shape[0]), self.x0, min(self.x1 + 1, shape[1])


def choose_region(
    name: str, regions: Sequence[Region], shape: tuple[int, int], number: int | None = None
) -> Region | None:
    """The region of tissue that is to be looked at, by its `number` from 1 where one is given; None: the file has none.

    Raises `ClipError` where the picture is not of tissue in two dimensions, or there is more than one such region.
    """
    if number is not None:
        if not 1 <= number <= len(regions):
            many = "s" if len(regions) != 1 else ""
            remedy = "Give one of them" if regions else "Leave it out"
            raise ClipError(name, f"region={number}: it has {len(regions)} ultrasound region{many}", remedy)
        chosen = regions[number - 1]
        if chosen.spatial_format != TWO_D or chosen.data_type != TISSUE:
            raise ClipError(name, f"region={number}: is not of tissue in two dimensions", "Give another one")
        return chosen
    for region in regions:
        if region.spatial_format in _KINDS and region.data_type in (TISSUE, COLOUR_FLOW, PW_DOPPLER, CW_DOPPLER):
            kind = _KINDS[region.spatial_format]
            raise ClipError(
                name,
                f"it shows {kind} (RegionSpatialFormat {region.spatial_format})",
                "Export the loop of the 2D view, or give the region of the 2D view",
            )
        if region.spatial_format == TWO_D and region.data_type == COLOUR_FLOW:
            raise ClipError(name, "it shows colour Doppler (RegionDataType 2)", "Export the loop without colour")
    tissue = [region for region in dict.fromkeys(regions) if _is_tissue(region)]
    large = [region for region in tissue if region.area >= _LEAST_SHARE * shape[0] * shape[1]]
    if len(large) > 1:
        numbers = " or ".join(str(regions.index(region) + 1) for region in large)
        raise ClipError(name, f"it shows {len(large)} pictures of tissue side by side", f"Give region {numbers}")
    return large[0] if large else tissue[0] if tissue else None


def find_scale(
    region: Region | None,
    shape: tuple[int, int],
    *,
    any_regions: bool = False,
    pixel_spacing: tuple[float, float] | None = None,
) -> tuple[tuple[float, float] | None, str, list[Finding]]:
    """Height and width of a pixel in mm or None, where they come from, and why there are none.

    `any_regions`: whether the file has other regions than one of tissue. PixelSpacing (0028,0030) serves where there is
    no region of tissue; where there is one, both have to agree within 1 %.
    """
    if region is None and pixel_spacing is not None:
        if refused := _refusal(pixel_spacing):
            return None, "none", [refused]
        return pixel_spacing, "PixelSpacing", []
    if region is None:
        text = "No ultrasound region is of tissue." if any_regions else "The file has no ultrasound region."
        return _none("scale_no_tissue_region" if any_regions else "scale_missing", text)
    if not region.lies_in(shape):
        text = (
            f"The ultrasound region reaches row {region.y1} and column {region.x1}, the picture has {shape[0]} x "
            f"{shape[1]} pixels: it was cut or resized, and its scale is that of another picture."
        )
        return _none("scale_outside_image", text)
    if region.units != (CENTIMETRES, CENTIMETRES):
        return _none("scale_units", f"The ultrasound region has units {region.units}, not cm (3).")
    spacing = abs(region.delta[0]) * 10, abs(region.delta[1]) * 10
    if refused := _refusal(spacing):
        return None, "none", [refused]
    if pixel_spacing is not None and any(
        not abs(ours / theirs - 1) <= 0.01 if theirs else True
        for ours, theirs in zip(spacing, pixel_spacing, strict=True)
    ):
        text = "The ultrasound region and PixelSpacing differ by more than 1 %."
        return _none("scale_contradicted", text)
    return spacing, "ultrasound region", []


def aspect_findings(aspect: float) -> list[Finding]:
    """What is to be said of pixels without a scale that are `aspect` times as wide as high.

    >>> [finding.name for finding in aspect_findings(1.5)], aspect_findings(1.0)
    (['pixels_not_square'], [])
    """
    if abs(aspect - 1) <= 0.01:
        return []
    text = f"Pixels are {aspect:.3g} times as wide as high; areas and EF are those of square ones."
    return [Finding("pixels_not_square", text)]


def _is_tissue(region: Region) -> bool:
    return region.spatial_format == TWO_D and region.data_type == TISSUE


def _refusal(spacing: tuple[float, float]) -> Finding | None:
    low, high = LIMITS_MM
    if not all(math.isfinite(length) and length > 0 for length in spacing):
        return Finding("scale_not_positive", "The size of a pixel is not a number above 0.")
    if not all(low <= length <= high for length in spacing):
        text = f"A pixel of {spacing[0]:.4g} x {spacing[1]:.4g} mm; those of an echo have {low:g} to {high:g} mm."
        return Finding("scale_outside_limits", text)
    return None


def _none(name: str, text: str) -> tuple[None, str, list[Finding]]:
    return None, "none", [Finding(name, text)]
