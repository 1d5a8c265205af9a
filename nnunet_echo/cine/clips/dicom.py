"""DICOM ultrasound: a loop, or a single picture, decoded frame by frame from the file.

Read are uncompressed pixels, RLE, JPEG, JPEG 2000, and with the extra `dicom` lossless JPEG and JPEG-LS; MPEG-2, H.264
and HEVC with the extra `video`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from numpy import ndarray

from nnunet_echo.cine.clips.clip import Clip, ClipError, Finding
from nnunet_echo.cine.clips.fragments import UNDEFINED, Span, SpanFile, encapsulated_frames, native_frames, read_spans
from nnunet_echo.cine.clips.header import Header, open_dicom, read_header
from nnunet_echo.cine.clips.pixels import NATIVE, FrameDecoder
from nnunet_echo.cine.clips.scale import aspect_findings, choose_region, find_scale
from nnunet_echo.cine.clips.survey import FLOW, sampled, shows_flow
from nnunet_echo.cine.clips.timing import find_times
from nnunet_echo.cine.clips.video import decode_grey, decode_rgb

# MPEG-2, H.264 and HEVC: PS3.6, Table A-1; .1 at the end: cut into several fragments
_VIDEOS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (100, 101, 102, 103, 104, 105, 106, 107, 108))

# How to decode the frames, how some of them in colour where they have any, and what is known of the colours.
Decoding = tuple[Callable[[], Iterator[ndarray]], Callable[[], Iterator[ndarray]] | None, list[Finding]]


def read_dicom(path: Path, name: str, region: int | None = None) -> Clip:
    """The clip in a DICOM file; `region` counts its ultrasound regions from 1. Raises `ClipError`."""
    header = read_header(path, name)
    shape = header.layout.shape
    chosen = choose_region(name, header.regions, shape, region)
    box = chosen.box(shape) if chosen is not None and chosen.lies_in(shape) else None
    findings: list[Finding] = []
    spacing, spacing_source, refused = find_scale(
        chosen,
        shape,
        any_regions=bool(header.regions),
        pixel_spacing=header.pixel_spacing if header.is_ultrasound else None,
    )
    if spacing is None:
        findings += aspect_findings(header.aspect)
    times, time_source, remarks = find_times(header.times, header.count)
    if not header.is_ultrasound:
        findings.append(Finding("not_ultrasound", "The file says that it is no ultrasound image (SOPClassUID)."))
    if _asks_for_a_window(header):
        text = "The file asks for another brightness (WindowCenter, WindowWidth); grey is taken as stored."
        findings.append(Finding("window_not_applied", text))
    frames, coloured, seen = (
        _video(path, name, header) if header.layout.syntax.startswith(_VIDEOS) else _stills(path, name, header)
    )
    if coloured is not None and shows_flow(coloured(), box):
        if header.is_ultrasound:
            raise ClipError(name, FLOW, "Export the loop without colour")
        findings.append(Finding("coloured", "It has colours, which become grey; whether they mean flow is not known."))
    return Clip(
        shape=shape,
        frames=frames,
        count=header.count,
        times_s=times,
        time_source=time_source,
        spacing_mm=spacing,
        spacing_source=spacing_source,
        region=box,
        findings=(*findings, *seen, *refused, *remarks),
    )


def _asks_for_a_window(header: Header) -> bool:
    """Whether pixels of 8 bits should be shown otherwise than stored."""
    if header.layout.samples == 3 or header.layout.bits_stored > 8 or header.layout.window is None:
        return False
    centre, width = header.layout.window
    return abs(centre - 128) > 4 or abs(width - 256) > 8


def _stills(path: Path, name: str, header: Header) -> Decoding:
    """Of frames that are pictures of their own."""
    decoder = FrameDecoder(header, name)
    with open_dicom(path, name) as file:
        if header.layout.syntax in NATIVE:
            if header.pixels_length == UNDEFINED:
                raise ClipError(name, "uncompressed pixels have no length", "Copy the file again")
            size = file.seek(0, 2)
            spans: list[list[Span]] = [
                [span]
                for span in native_frames(
                    name, header.pixels_start, header.pixels_length, size, header.count, decoder.frame_bytes
                )
            ]
        else:
            if header.pixels_length != UNDEFINED:
                raise ClipError(name, "compressed pixels are not cut into items", "Copy the file again")
            spans = encapsulated_frames(file, name, header.pixels_start, header.count, offsets=header.extended_offsets)
        seen = decoder.settle(read_spans(file, spans[0], name), 1) if header.layout.samples == 3 else []
    grey = partial(_decode, path, name, spans, decoder, list(range(header.count)), False)
    colours = header.layout.samples == 3 or header.layout.photometric == "PALETTE COLOR"
    rgb = partial(_decode, path, name, spans, decoder, sampled(header.count), True) if colours else None
    return grey, rgb, seen


def _decode(
    path: Path, name: str, spans: list[list[Span]], decoder: FrameDecoder, taken: list[int], colours: bool
) -> Iterator[ndarray]:
    decode = decoder.rgb if colours else decoder.grey
    with open_dicom(path, name) as file:
        for index in taken:
            yield decode(read_spans(file, spans[index], name), index + 1)


def _video(path: Path, name: str, header: Header) -> Decoding:
    """Of a video within a DICOM file."""
    with open_dicom(path, name) as file:
        if header.pixels_length != UNDEFINED:
            raise ClipError(name, "compressed pixels are not cut into items", "Copy the file again")
        [spans] = encapsulated_frames(file, name, header.pixels_start, header.count, stream=True)

    def opened() -> SpanFile:
        return SpanFile(open_dicom(path, name), spans)

    grey = partial(decode_grey, opened, name, header.layout.shape, header.count)
    rgb = partial(decode_rgb, opened, name, sampled(header.count))
    return grey, rgb, []
