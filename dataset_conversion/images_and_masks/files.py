"""One image and its mask from files of any kind that is read: PNG, BMP, TIFF, JPEG (images), NIfTI, MetaImage, DICOM.

Images become 8 bit grey; colours by ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B. Masks become the numbers of `Labels`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo.data.errors import SourceError, times
from nnunet_echo.data.images import Frame, check_spacing, read_frame
from nnunet_echo.data.labels import Labels
from nnunet_echo.data.natural_image import KINDS, read_natural_image
from nnunet_echo.data.nifti import names_unit
from nnunet_echo.data.quiet import quietly

LOSSY = (".jpg", ".jpeg")
DICOM = (".dcm", ".dicom")
WITH_SPACING = (".nii.gz", ".nii", ".mhd", ".mha", *DICOM)
ENDINGS = (*WITH_SPACING, *KINDS)
BT601 = np.array([0.299, 0.587, 0.114])
NO_SPACING = "no spacing"  # SimpleITK's images always have one
_SQUARE_2D, _CENTIMETRES = 1, 3  # RegionSpatialFormat and PhysicalUnits of DICOM's ultrasound regions


def read_image_and_mask(
    root: Path, image: str, mask: str, labels: Labels, spacing: tuple[float, float] | None
) -> Frame:
    """The files at these paths below `root`; `spacing` (row, column), or None for what the image's header says.

    Raises `SourceError`, naming the file, for what cannot become a case.
    """
    picture, warnings = _grey(_read(root / image, image), image), []
    label = _mask(root / mask, mask, labels)
    if picture.GetSize() != label.GetSize():
        raise SourceError(
            f"{mask}: {times(label.GetSize())} pixels (columns x rows), but its image {image} has "
            f"{times(picture.GetSize())}. Give each image the mask of its own size."
        )
    if spacing is not None:
        given = spacing[::-1]
        if image.lower().endswith(WITH_SPACING) and not np.allclose(picture.GetSpacing(), given, rtol=1e-4, atol=0):
            warnings.append(
                (
                    "spacing replaced",
                    f"{image}: {times(picture.GetSpacing())} in the header, {times(given)} given by --spacing is used",
                )
            )
        for part in (picture, label):
            part.SetSpacing(given)
    elif picture.HasMetaDataKey(NO_SPACING):
        raise SourceError(
            f"{image}: its header gives no spacing. Give --spacing R C in mm (of rows, of columns), or "
            "--spacing px where no scale is known."
        )
    else:
        check_spacing(picture.GetSpacing(), image, "mm")
    if not (image.lower().endswith(WITH_SPACING) and mask.lower().endswith(WITH_SPACING)):
        label.CopyInformation(picture)  # one of the two has no grid of its own
    return Frame(picture, image, label, mask, tuple(warnings))


def _read(path: Path, name: str) -> sitk.Image:
    """Any image, of one or more values a pixel."""
    ending = path.suffix.lower()
    if ending in DICOM:
        return _dicom(path, name)
    if ending not in KINDS:
        image = read_frame(path, name, "px")  # any positive spacing; whether it can be in mm is asked once it is chosen
        if not names_unit(image) and image.GetSpacing() == (1, 1):  # as of files where nobody knows one
            image.SetMetaData(NO_SPACING, "")
        return image
    pixels, mode = read_natural_image(path, name)
    if mode not in ("1", "L", "I", "I;16", "F", "RGB"):  # palettes, opacity, CMYK: as they look
        pixels = read_natural_image(path, name, colours=True)[0][..., :3]
    return sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3)


def _grey(image: sitk.Image, name: str) -> sitk.Image:
    """The image with one value a pixel, colours as BT.601 has them; values that no 8 bits hold are an error."""
    pixels = sitk.GetArrayViewFromImage(image)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):
        raise SourceError(
            f"{name}: values {low:g} to {high:g}; images must have 8 bits (0 to 255). Rescale all images "
            "in the same way and convert those."
        )
    if pixels.ndim == 2:
        return image
    grey = sitk.GetImageFromArray(np.rint(pixels[..., :3] @ BT601).astype(np.uint8))
    grey.CopyInformation(image)
    for key in image.GetMetaDataKeys():
        grey.SetMetaData(key, image.GetMetaData(key))
    return grey


def _mask(path: Path, name: str, labels: Labels) -> sitk.Image:
    """The mask with the numbers of `labels`, with the grid of its file."""
    ending = path.suffix.lower()
    if ending in LOSSY:
        raise SourceError(f"{name}: JPEG changes values at every edge, so it holds no labels. Export the masks as PNG.")
    if labels.colours:
        if ending not in KINDS:
            raise SourceError(f"{name}: it has no colours, and --labels names colours. Give values, such as LV=1.")
        rgba = read_natural_image(path, name, colours=True)[0].astype(np.int64)
        values = np.where(rgba[..., 3] == 0, labels.background, rgba[..., :3] @ (1 << 16, 1 << 8, 1))
        grid = None
    else:
        values, grid = _values(path, name)
    numbers = labels.numbered()
    known = {labels.background: 0} | {value: numbers[structure] for structure, value in labels.values.items()}
    present = np.unique(values)
    if not labels.colours and len(known) == 2 and labels.background == 0 and set(present.tolist()) <= {0, 255}:
        known = {0: 0, 255: 1}  # white on black
    if unknown := [value for value in present.tolist() if value not in known]:
        shown = ", ".join(labels.text(value) if labels.colours else f"{value:g}" for value in unknown[:8])
        expected = ", ".join(labels.text(value) for value in known)
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        blurred = "; a mask that was resized smoothly has such values at its edges" if len(unknown) > 3 else ""
        raise SourceError(
            f"{name}: unknown {'colours' if labels.colours else 'values'} {shown}{more}; --labels has "
            f"{expected}{blurred}."
        )
    keys = np.array(sorted(known))
    label = sitk.GetImageFromArray(
        np.array([known[key] for key in keys.tolist()], np.uint8)[np.searchsorted(keys, values)]
    )
    if grid is not None:
        label.CopyInformation(grid)
    return label


def _values(path: Path, name: str) -> tuple[ndarray, sitk.Image | None]:
    """The values of a mask (H, W), of a palette its indices, and the image that has its grid where the file has one."""
    if path.suffix.lower() not in KINDS:
        image = _read(path, name)
        values = sitk.GetArrayFromImage(image)
    else:
        image, values = None, read_natural_image(path, name)[0]
    if values.ndim == 2:
        return values, image
    colours = values[..., :3].astype(np.int64)
    if values.shape[2] == 2:  # grey with opacity
        return values[..., 0], image
    if (colours == colours[..., :1]).all():
        return colours[..., 0], image
    found = [f"#{value:06x}" for value in np.unique(colours @ (1 << 16, 1 << 8, 1)).tolist()]
    raise SourceError(
        f"{name}: its labels are colours, {', '.join(found[:8])}{' and more' if len(found) > 8 else ''}. "
        "Name them, as in --labels LV='#ff0000'."
    )


def _dicom(path: Path, name: str) -> sitk.Image:
    """A DICOM file of one frame. Its spacing is that of the first 2D region in centimetres, or PixelSpacing."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    if not path.is_file():
        raise SourceError(f"{name} is missing or not a file.")
    try:
        with quietly():
            data = pydicom.dcmread(path)
            frames = int(data.get("NumberOfFrames") or 1)
            if frames > 1:
                raise SourceError(f"{name}: {frames} frames; one 2D image is needed. Write each to a file.")
            pixels = pixel_array(data)  # colours as RGB
            regions = [
                region
                for region in data.get("SequenceOfUltrasoundRegions") or ()
                if region.get("RegionSpatialFormat") == _SQUARE_2D
                and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRES
            ]
            if regions:
                spacing = [10 * abs(float(regions[0][key].value)) for key in ("PhysicalDeltaY", "PhysicalDeltaX")]
            else:
                spacing = [float(length) for length in data.get("PixelSpacing") or (1, 1)]
            if data.get("PhotometricInterpretation") == "MONOCHROME1":
                pixels = (1 << int(data.BitsStored)) - 1 - pixels
    except SourceError:
        raise
    except Exception as error:  # whatever a damaged file, or a codec that is not there, makes of it
        raise SourceError(f"{name}: pydicom cannot read it ({type(error).__name__}: {error}).") from error
    image = sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3)
    check_spacing(tuple(spacing[::-1]), name, "px")
    image.SetSpacing(spacing[::-1])
    if not regions and not data.get("PixelSpacing"):
        image.SetMetaData(NO_SPACING, "")
    return image
