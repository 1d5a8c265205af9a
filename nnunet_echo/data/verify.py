"""Is an image file all there and intact? Asked of its own format, since the libraries that read it do not say."""

from __future__ import annotations

from pathlib import Path

from nnunet_echo.data.meta_image import MetaImage, read_meta_image
from nnunet_echo.data.natural_image import verify_png
from nnunet_echo.data.nifti import MAX_BYTES, verify_nifti


def verify_image(path: Path, name: str, limit: int = MAX_BYTES) -> MetaImage | None:
    """Raise `SourceError`, naming the file `name`, for a NIfTI, MetaImage or PNG that is not all there, or damaged.

    Files of other endings are not looked at. Returns what a MetaImage holds; `OSError` where a file cannot be read.
    """
    ending = path.name.lower()
    if ending.endswith((".nii", ".nii.gz")):
        verify_nifti(path, name, limit)
    elif ending.endswith(".png"):
        verify_png(path, name)
    return read_meta_image(path, name, limit) if ending.endswith((".mhd", ".mha")) else None
