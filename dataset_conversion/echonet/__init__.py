"""EchoNet-Dynamic to nnU-Net: `nnunet-echo convert echonet SOURCE`.

The two traced frames of each video become the 2D cases `ECHONET_0X1A2B_ED` and `.._ES`: background 0, left ventricle 1,
one grey channel. ED is the frame with the larger ventricle: neither the order of rows nor that of frames says so.
The release has no pixel spacing: it is 1 pixel, lengths are in pixels, and volumes in mL cannot be had from the masks.

`--mode clip` writes the frames from ED to ES as one 3D case, `ECHONET_0X1A2B` (data/cine.py), with the ignore label in
every frame between. ED comes first, also in the few videos where ES is traced before it: they run backwards.
`--clip 10` takes ten frames; no other is decoded.

Left out, each with its reason in the report:
- rows of another frame size without a tracing: a warning, the release has none for them;
- irregular tracings, unless `--keep-irregular`: not 21 rows, rows out of order, an outline that crosses itself;
- tracings of a video that is not listed, not of exactly two frames, or with values that are not numbers;
- videos that are missing, cut off, damaged, or of another length than listed, and videos that are not listed.

Splits (`--split`), one video being one patient; TEST videos go to imagesTs in the first two:
- `official` (default): fold 0 is TRAIN against VAL.
- `5fold`: five folds, stratified by EF, over TRAIN and VAL.
- `7:1:2` and `file`, over all three and of any dataset: splits.py.

Exit code 0: every row and tracing became its cases. 1: one was refused, for the reason in the report, and the dataset
holds the others; the release itself has about a hundred such. 2: nothing was converted, there is no dataset.
The data are under Stanford's research use agreement: a converted dataset is a copy that must not be passed on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo.data.avi import read_frames
from nnunet_echo.data.cases import Case
from nnunet_echo.data.cine import make_case, sampled_frames, sequence_json
from nnunet_echo.data.findings import Note
from nnunet_echo.data.images import Frame
from nnunet_echo.data.reader import Reading, SequenceReader
from nnunet_echo.data.splits import SPLITS_OF_ALL, Split, five_folds, listed_split

from .source import LIST, SIZE, SUBSETS, TRACINGS, VIDEOS, Video, find_source, read_videos
from .tracing import tracing_mask, why_irregular

IGNORE = 2
MOST_FRAMES = 100_000  # of a video without NumberOfFrames; the longest of the release has 1002
FEWEST_ROWS = 4  # the long axis and three lines: less encloses no area worth the name

DATASET_JSON: dict[str, Any] = {
    "name": "EchoNetDynamic",
    "description": "EchoNet-Dynamic: the left ventricle in apical 4-chamber videos, at ED and ES",
    "reference": "D. Ouyang et al., Nature 580:252-256, 2020, doi 10.1038/s41586-020-2145-8",
    "licence": "Stanford University Dataset Research Use Agreement: not to be distributed",
    "channel_names": {"0": "ultrasound"},  # not a name that nnU-Net treats in a special way: z-score
    "labels": {"background": 0, "LV": 1},
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
    "spacing_unit": "px",
    "case_id_pattern": r"(?P<patient>ECHONET_[A-Za-z0-9-]+)_(?P<phase>ED|ES)",
}
CLIPS_JSON = {
    **DATASET_JSON,
    "name": "EchoNetDynamic_Clips",
    "description": "EchoNet-Dynamic: the left ventricle in apical 4-chamber videos from ED to ES, traced at either end",
    "labels": {**DATASET_JSON["labels"], "ignore": IGNORE},
    "case_id_pattern": r"(?P<patient>ECHONET_[A-Za-z0-9-]+)",
    "sequence": sequence_json("px"),
}


@dataclass(frozen=True, kw_only=True)
class EchoNetDynamic(SequenceReader):
    """EchoNet-Dynamic; see the module's docstring."""

    mode: str = "frames"
    split: str = "official"
    keep_irregular: bool = False

    name = "echonet"
    summary = "EchoNet-Dynamic: 2D frames at ED and ES, or the clips between them"
    source_help = f"the unpacked download: a folder with {LIST}, {TRACINGS} and {VIDEOS}/ in it or somewhere below it"
    dataset_ids = {"EchoNetDynamic": 752, "EchoNetDynamic_Clips": 755}
    modes = {"frames": "each ED and ES frame a 2D case", "clip": "each video from ED to ES a 3D case"}
    splits = {
        "official": "TRAIN against VAL, one fold, TEST apart",
        "5fold": "five folds stratified by EF over TRAIN and VAL, TEST apart",
        **SPLITS_OF_ALL,
    }

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--keep-irregular",
            action="store_true",
            help="also convert irregular tracings: another number of rows, crossing outlines",
        )

    def dataset_json(self) -> dict[str, Any]:
        return CLIPS_JSON if self.mode == "clip" else DATASET_JSON

    def read(self, source: Path) -> Reading:
        root = find_source(source)
        videos, has_split, refused, warnings = read_videos(root)
        if not has_split:
            if self.split == "official":
                raise ValueError(
                    f"--split official needs the column Split in {LIST}, which this copy lacks. Use --split 5fold."
                )
            warnings.append(Note("no split", "split", f"{LIST} has no column Split; no case is kept for testing."))
        reading = Reading(refused=refused, warnings=warnings)
        for video in videos.values():
            self._list_cases(root, video, reading)
        patients = {case.patient for case in reading.cases}
        reading.split = self.drawn_or_given_split(patients) or self._split_of_echonet(patients, videos)
        return reading

    def _list_cases(self, root: Path, video: Video, reading: Reading) -> None:
        """Add the video's cases, or why it has none."""
        phases = _ed_and_es(video, self.keep_irregular, reading)
        if phases is None:
            return
        patient, source = f"ECHONET_{video.name}", video.path
        tracings = [video.tracing(frame) for frame in phases]
        ef = "" if video.ef_percent is None else f"{video.ef_percent:.6g}"
        if self.mode == "clip":
            if max(phases) >= (video.frames or MOST_FRAMES):
                reading.refuse(
                    "unusable row",
                    patient,
                    f"{source}: frame {max(phases)} is traced in {TRACINGS}, but "
                    f"{f'it has {video.frames}' if video.frames else 'no video has as many'} frames.",
                )
                return
            taken = sampled_frames(*phases, self.clip)
            read = partial(read_traced_clip, root, source, taken, video.frames, tracings, self.size)
            table = {"ef_percent": ef, "subset": video.subset}
            reading.cases.append(Case(patient, patient, source, read, table=table))
            return
        for phase, frame, tracing in zip(("ED", "ES"), phases, tracings, strict=True):
            read = partial(read_traced_frame, root, source, frame, video.frames, tracing)
            table = {"phase": phase, "frame": str(frame), "ef_percent": ef, "subset": video.subset}
            reading.cases.append(Case(f"{patient}_{phase}", patient, source, read, table=table))

    def _split_of_echonet(self, patients: set[str], videos: Mapping[str, Video]) -> Split:
        subsets = {
            subset: patients & {f"ECHONET_{video.name}" for video in videos.values() if video.subset == subset}
            for subset in SUBSETS
        }
        if self.split == "5fold":
            strata = {f"ECHONET_{video.name}": (_ef_group(video),) for video in videos.values()}
            return five_folds(patients, strata, seed=self.seed, test=subsets["TEST"])
        return listed_split(subsets["TRAIN"], subsets["VAL"], subsets["TEST"])


def read_traced_frame(root: Path, video: str, frame: int, frames: int | None, tracing: ndarray) -> Frame:
    """One frame of the video at the path `video` below `root`, with the mask of its tracing; spacing 1 pixel."""
    (pixels,) = read_frames(root / video, video, [frame], SIZE, frames)
    mask = sitk.GetImageFromArray(tracing_mask(tracing, SIZE))
    return Frame(sitk.GetImageFromArray(pixels), f"{video}, frame {frame}", mask, f"tracing of {video}, frame {frame}")


def read_traced_clip(
    root: Path, video: str, taken: Sequence[int], frames: int | None, tracings: Sequence[ndarray], size: int | None
) -> Frame:
    """The frames `taken` of the video, with the masks of the tracings of the first and the last of them."""
    pixels = read_frames(root / video, video, taken, SIZE, frames)
    masks = np.zeros_like(pixels)
    masks[0], masks[-1] = (tracing_mask(tracing, SIZE) for tracing in tracings)
    cine = Frame(sitk.GetImageFromArray(pixels), video, sitk.GetImageFromArray(masks), f"tracings of {video}")
    return make_case(cine, range(len(taken)), taken, size=size, unit="px", ignore=IGNORE)


def _ed_and_es(video: Video, keep_irregular: bool, reading: Reading) -> tuple[int, int] | None:
    """The traced frames at ED and ES; None, for a reason that joins `reading`, where the video cannot be used."""
    patient, source = f"ECHONET_{video.name}", video.path
    tracings = {frame: video.tracing(frame) for frame in sorted(video.rows)}
    irregular = {frame: reason for frame, tracing in tracings.items() if (reason := why_irregular(tracing))}
    texts = "; ".join(f"frame {frame}: {reason}" for frame, reason in irregular.items())
    if video.problem:
        reading.refuse("unusable row", patient, video.problem)
        return None
    if not tracings and video.size != SIZE:
        reading.warn(
            "other size, not traced",
            patient,
            f"{LIST} gives it {video.size[0]} x {video.size[1]} pixels and {TRACINGS} no tracing.",
        )
        return None
    if len(tracings) != 2:
        reading.refuse(
            "not two tracings",
            patient,
            f"{source}: {len(tracings)} traced frames in {TRACINGS}, not one at ED and one at ES.",
        )
        return None
    if irregular and not keep_irregular:
        reading.refuse("irregular tracing", patient, f"{source}: {texts}. Give --keep-irregular to convert it.")
        return None
    if min(map(len, tracings.values())) < FEWEST_ROWS:
        reading.refuse("irregular tracing", patient, f"{source}: {texts}; too few for an outline.")
        return None
    areas = {frame: int(tracing_mask(tracing, SIZE).sum()) for frame, tracing in tracings.items()}
    ed, es = sorted(areas, key=areas.__getitem__, reverse=True)
    if areas[ed] == areas[es]:
        reading.refuse(
            "ED or ES",
            patient,
            f"{source}: the tracings of frames {ed} and {es} are equally large, {areas[ed]} pixels.",
        )
        return None
    if irregular:
        reading.warn("irregular tracing", patient, f"{source}: {texts}; kept.")
    return ed, es


def _ef_group(video: Video) -> str:
    """EF in steps of 5 percent, which sort as texts."""
    return "unknown" if video.ef_percent is None else f"{video.ef_percent // 5:02.0f}"


READER = EchoNetDynamic
