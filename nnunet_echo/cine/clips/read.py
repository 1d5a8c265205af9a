"""Read a clip, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_echo.cine.clips.clip import Clip, ClipError
from nnunet_echo.cine.clips.dicom import read_dicom
from nnunet_echo.cine.clips.images import ITK_ENDINGS, read_folder, read_gif, read_volume
from nnunet_echo.cine.clips.scale import find_scale
from nnunet_echo.cine.clips.survey import counting_levels, level_findings, survey_findings, unlike_neighbours
from nnunet_echo.cine.clips.timing import by_the_user, rate_impossible
from nnunet_echo.cine.clips.video import ENDINGS, read_avi_or_video
from nnunet_echo.data.errors import printable

_RATE_FINDINGS = ("frame_rate_low", "frame_rate_high")
_TIME_FINDINGS = (
    *_RATE_FINDINGS,
    "frame_rate_impossible",
    "time_missing",
    "time_vector_refused",
    "time_sources_disagree",
)


def read_clip(
    path: Path | str, *, spacing: tuple[float, float] | None = None, fps: float | None = None, region: int | None = None
) -> Clip:
    """The clip in a file, or in a folder of pictures; every frame is decoded once, to see that it can be.

    `spacing` is the height and width of a pixel in mm and `fps` the frames a second where the file does not say, or
    says it wrongly; both are then "by the user". `region` counts the ultrasound regions of a DICOM file from 1.
    Raises `ClipError` for what is no clip of one view in two dimensions, or is damaged; `FileNotFoundError`;
    `ValueError` for arguments that cannot be.

        clip = read_clip("loop.dcm")
        for frame in clip.frames(): ...
    """
    path = Path(path)
    name = printable(path.name)
    if spacing is not None:
        scale, _, refused = find_scale(None, (1, 1), pixel_spacing=(float(spacing[0]), float(spacing[1])))
        if scale is None:
            raise ValueError(f"spacing={spacing}: {refused[0].text} Give mm a pixel, rows first.")
    clip = _read(path, name, region)
    if spacing is not None:
        kept = tuple(finding for finding in clip.findings if not finding.name.startswith(("scale_", "pixels_not_")))
        clip = replace(clip, spacing_mm=scale, spacing_source="by the user", findings=kept)
    if fps is not None:
        times, source, findings = by_the_user(fps, clip.count, clip.times_s, clip.findings)
        kept = tuple(
            finding for finding in clip.findings if finding.name not in (*_TIME_FINDINGS, "frames_not_in_time")
        )
        clip = replace(clip, times_s=times, time_source=source, findings=(*kept, *findings))
    elif clip.times_s is not None and (impossible := rate_impossible(clip.times_s, clip.time_source)) is not None:
        kept = tuple(finding for finding in clip.findings if finding.name not in _RATE_FINDINGS)
        clip = replace(clip, times_s=None, time_source="none", findings=(*kept, impossible))
    levels = np.zeros(256, np.int64)
    count, unlike = unlike_neighbours(counting_levels(clip.frames(), clip.region, levels))
    if count != clip.count:
        raise ClipError(name, f"{count} frames can be decoded where {clip.count} are announced", "Copy the file again")
    return clip.with_findings(*survey_findings(unlike), *level_findings(levels))


def _read(path: Path, name: str, region: int | None) -> Clip:
    if path.is_dir():
        return read_folder(path, name)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if not path.is_file():  # opening a pipe would wait for ever
        raise ClipError(name, "it is not a file", "Give a file, or a folder of pictures")
    try:
        with path.open("rb") as file:
            start = file.read(132)
        if not start:
            raise ClipError(name, "it is empty", "Copy the file again")
        if start[128:] == b"DICM":
            return read_dicom(path, name, region)
        if region is not None:
            raise ClipError(name, f"region={region}: only DICOM files have ultrasound regions", "Leave it out")
        if path.name.lower().endswith(ITK_ENDINGS):
            return read_volume(path, name)
        if start[:4] == b"GIF8":
            return read_gif(path, name)
        if path.suffix.lower() in ENDINGS:
            return read_avi_or_video(path, name)
    except OSError as error:
        raise ClipError(
            name, f"it cannot be read ({error.strerror or type(error).__name__})", "Copy it again"
        ) from error
    raise ClipError(
        name,
        "it is not a clip that can be read",
        f"Give DICOM, {', '.join(ENDINGS)}, {', '.join(ITK_ENDINGS)}, .gif, or a folder of pictures",
    )
