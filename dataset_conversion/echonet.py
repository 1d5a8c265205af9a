"""EchoNet-Dynamic to nnU-Net: `nnunet-echo convert echonet SOURCE`, or this module with `python -m`.

The two traced frames of each video become the 2D cases `ECHONET_0X1A2B_ED` and `.._ES`: background 0, left ventricle 1,
one grey channel. ED is the frame with the larger ventricle: neither the order of the rows nor that of the frames tells.
The release has no pixel spacing: it is 1 pixel, lengths are in pixels, and volumes in mL cannot be had from the masks.

Left out, each with its reason in the report:
- rows of another frame size without a tracing: a warning, the release has none for them;
- irregular tracings, unless `--keep-irregular`: not 21 rows, rows out of order, an outline that crosses itself;
- tracings of a video that is not listed, of other than two frames, with values that are no numbers;
- videos that are missing, cut off, damaged, or of another length than listed.

Splits (`--split`), one video being one patient; the release's TEST videos go to imagesTs in both:
- `official` (default): fold 0 is TRAIN against VAL.
- `5fold`: five folds, stratified by EF, over TRAIN and VAL.

Exit code 0: every row and tracing became its cases. 1: one was refused, for the reason in the report, and the dataset
holds the others; the release itself has about a hundred such. 2: nothing was converted.
The data are under Stanford's research use agreement: a converted dataset is a copy that must not be passed on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo import __version__
from nnunet_echo.dataset_conversion.avi import read_frames
from nnunet_echo.dataset_conversion.command import add_common_arguments, report_conversion
from nnunet_echo.dataset_conversion.echonet_source import LIST, SIZE, TRACINGS, VIDEOS, Video, find_source, read_videos
from nnunet_echo.dataset_conversion.folders import new_dataset_folder, raw_folder
from nnunet_echo.dataset_conversion.images import Frame
from nnunet_echo.dataset_conversion.raw_dataset import (
    Case,
    FoldMaker,
    listed_folds,
    stratified_folds,
    warn_of_fewer_folds,
    write_dataset,
)
from nnunet_echo.dataset_conversion.report import Note, Report
from nnunet_echo.dataset_conversion.tracing import tracing_mask, why_irregular

SPLITS = ("official", "5fold")
FEWEST_ROWS = 4  # the long axis and three lines: less encloses no area worth the name

DATASET_JSON = {
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


def convert_echonet(source: str | Path, *, dataset_id: int = 752, split: str = "official", keep_irregular: bool = False,
                    raw: str | Path | None = None, workers: int | None = None) -> Report:
    """Convert a download of EchoNet-Dynamic to `DatasetXXX_EchoNetDynamic` below `raw` (default nnUNet_raw).

    Raises `ValueError` for a bad argument or an unusable table, `FileNotFoundError` for a missing source or table,
    `OSError` for a target that is not ours or cannot be written. Workers are processes: a script that calls this needs
    the usual `if __name__ == "__main__":`, or `workers=1`.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose from {SPLITS}")
    root = find_source(Path(source))
    folder = new_dataset_folder(raw_folder(raw), dataset_id, DATASET_JSON["name"])
    videos, has_split, refused, warnings = read_videos(root)
    if not has_split:
        if split == "official":
            raise ValueError(f"--split official needs the column Split in {LIST}, which this copy lacks; use --split "
                             "5fold")
        warnings.append(Note("no split", "split", f"{LIST} has no column Split; no case is kept for testing"))
    cases: list[Case] = []
    for video in videos.values():
        _list_cases(root, video, keep_irregular, cases, refused, warnings)
    if split == "5fold":
        warnings += warn_of_fewer_folds(cases)

    converter = f"nnunet_echo.dataset_conversion.echonet {__version__}"
    return write_dataset(folder, cases, {**DATASET_JSON, "converted_by": converter}, converter=converter,
                         options={"split": split, "keep_irregular": keep_irregular}, refused=refused,
                         make_folds=_fold_maker(videos, split), warnings=warnings, workers=workers)


def read_traced_frame(root: Path, video: str, frame: int, frames: int | None, tracing: ndarray) -> Frame:
    """One frame of the video at the path `video` below `root`, with the mask of its tracing; spacing 1 pixel."""
    (pixels,) = read_frames(root / video, video, [frame], SIZE, frames)
    mask = sitk.GetImageFromArray(tracing_mask(tracing, SIZE))
    return Frame(sitk.GetImageFromArray(pixels), f"{video}, frame {frame}", mask, f"tracing of {video}, frame {frame}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `convert echonet`."""
    add_common_arguments(
        parser, dataset_id=752, splits=SPLITS,
        source=f"the unpacked download: a folder with {LIST}, {TRACINGS} and {VIDEOS}/ in it or somewhere below it",
        split="official (default): TRAIN against VAL, one fold; 5fold: five folds stratified by EF over both; TEST "
              "videos are kept apart in either")
    parser.add_argument("--keep-irregular", action="store_true",
                        help="convert irregular tracings too: not 21 rows, out of order, crossing themselves")


def run(args: argparse.Namespace) -> int:
    """Convert, print the summary, and return the exit code described in the module's docstring."""
    return report_conversion(
        lambda: convert_echonet(args.source, dataset_id=args.dataset_id, split=args.split, raw=args.raw,
                                keep_irregular=args.keep_irregular, workers=args.workers), args.dataset_id)


def _list_cases(root: Path, video: Video, keep_irregular: bool, cases: list[Case], refused: list[Note],
                warnings: list[Note]) -> None:
    """Append the video's cases, or why it has none, to the three lists."""
    patient, source = f"ECHONET_{video.name}", f"{VIDEOS}/{video.name}.avi"
    tracings = {frame: video.tracing(frame) for frame in sorted(video.rows)}
    irregular = {frame: reason for frame, tracing in tracings.items() if (reason := why_irregular(tracing))}
    texts = "; ".join(f"frame {frame}: {reason}" for frame, reason in irregular.items())
    if video.problem:
        refused.append(Note("unusable row", patient, video.problem))
    elif not tracings and video.size != SIZE:
        warnings.append(Note("other size, not traced", patient, f"{LIST} gives it {video.size[0]} x {video.size[1]} "
                             f"pixels and {TRACINGS} no tracing"))
    elif len(tracings) != 2:
        refused.append(Note("not two tracings", patient, f"{source}: {len(tracings)} traced frames in {TRACINGS}, not "
                            "one at ED and one at ES"))
    elif irregular and not keep_irregular:
        refused.append(Note("irregular tracing", patient, f"{source}: {texts}; --keep-irregular converts it"))
    elif min(map(len, tracings.values())) < FEWEST_ROWS:
        refused.append(Note("irregular tracing", patient, f"{source}: {texts}; too few for an outline"))
    else:
        if irregular:
            warnings.append(Note("irregular tracing", patient, f"{source}: {texts}; kept"))
        areas = {frame: int(tracing_mask(tracing, SIZE).sum()) for frame, tracing in tracings.items()}
        ed, es = sorted(areas, key=areas.get, reverse=True)
        if areas[ed] == areas[es]:
            refused.append(Note("ED or ES", patient, f"{source}: the tracings of frames {ed} and {es} are equally "
                                f"large, {areas[ed]} pixels"))
            return
        for phase, frame in (("ED", ed), ("ES", es)):
            table = {"phase": phase, "frame": str(frame),
                     "ef_percent": "" if video.ef_percent is None else f"{video.ef_percent:.6g}",
                     "subset": video.subset}
            read = partial(read_traced_frame, root, source, frame, video.frames, tracings[frame])
            cases.append(Case(f"{patient}_{phase}", patient, source, read, video.subset == "TEST", table))


def _fold_maker(videos: Mapping[str, Video], split: str) -> FoldMaker:
    if split == "5fold":
        strata = {f"ECHONET_{video.name}": (_ef_group(video),) for video in videos.values()}
        return partial(stratified_folds, strata=strata)
    training, validation = ({f"ECHONET_{video.name}" for video in videos.values() if video.subset == subset}
                            for subset in ("TRAIN", "VAL"))
    return partial(listed_folds, lists=[(training, validation)])


def _ef_group(video: Video) -> str:
    """EF in steps of 5 percent, which sort as texts."""
    return "unknown" if video.ef_percent is None else f"{video.ef_percent // 5:02.0f}"


def main() -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="Convert EchoNet-Dynamic to an nnU-Net raw dataset.")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
