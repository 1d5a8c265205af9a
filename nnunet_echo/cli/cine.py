"""`nnunet-echo cine -i CLIP -o OUT -m MODEL -f 0`: from a clip to masks, beats, ejection fraction and a report.

CLIP is a DICOM loop, a video, a NIfTI or MetaImage file, a GIF or a folder of pictures; two of them are two views of
one study; a folder of clips is measured one by one. MODEL is named as for `predict`. The exit status is 0, 1 where a
number was refused or a clip of several was left out, and 2 where nothing was done.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_echo.cine.output import check_new
from nnunet_echo.cine.result import BY_DEFAULT, NOTICE, SAVED, VIEWS
from nnunet_echo.cli.predict import add_model, load_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnunet_echo.cine.model import CineModel
    from nnunet_echo.cine.result import CineResult, Loop

INTERRUPTED = "interrupted; the clip under way left nothing, and results that are there are complete"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cine`."""
    parser.add_argument(
        "-i",
        "--clips",
        type=Path,
        nargs="+",
        required=True,
        metavar="CLIP",
        help="a clip, two clips of one study, or a folder of clips",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="new folder for the results")
    add_model(parser)
    parser.add_argument("--view", nargs="+", choices=VIEWS, default=(), help="of the clip, or of two clips: 4CH 2CH")
    parser.add_argument(
        "--spacing", nargs=2, type=_positive, metavar=("R", "C"), help="mm from row to row and from column to column"
    )
    parser.add_argument("--fps", type=_positive, metavar="N", help="frames a second")
    parser.add_argument("--region", type=int, metavar="N", help="which ultrasound region of the DICOM file, from 1")
    parser.add_argument(
        "--smooth", action="store_true", help="average masks over time; numbers without it stand beside"
    )
    parser.add_argument(
        "--save", nargs="+", choices=SAVED, default=BY_DEFAULT, help=f"(default: {' '.join(BY_DEFAULT)})"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, write and say what was found. Errors are raised as `measure_study` and `CineResult.save`."""
    from nnunet_echo.cine.batch import is_many
    from nnunet_echo.cine.study import check_sources, check_views

    if len(args.clips) > 2:
        raise ValueError(
            f"-i: {len(args.clips)} clips; a study is one or two. Put others into a folder, and name the folder."
        )
    many = len(args.clips) == 1 and is_many(args.clips[0])
    check_new(args.output, many=many)
    if many and len(args.view) > 1:
        raise ValueError("--view: clips of a folder are measured one by one. Name one view that all have, or none.")
    if not many:
        check_views(args.clips, args.view)
        check_sources(args.save, args.clips[0])
    model = load_model(args)
    model.stream([], probabilities=args.smooth)  # raises where the model takes no frames
    status = _folder(model, args) if many else _study(model, args)
    _say(NOTICE)
    return status


def _study(model: CineModel, args: argparse.Namespace) -> int:
    result = _measure(model, args.clips, args)
    _save(result, args.output, args, args.clips[0])
    return result.exit_code


def _folder(model: CineModel, args: argparse.Namespace) -> int:
    from nnunet_echo.cine.batch import list_clips, name_results, summary_rows
    from nnunet_echo.cine.study import check_sources
    from nnunet_echo.evaluation.output import write_table

    clips = list_clips(args.clips[0])
    names = name_results(len(clips))
    _say(f"{len(clips)} clips. Only these lines say which is which: results hold no file names.")
    results: list[tuple[str, CineResult | None]] = []
    for name, clip in zip(names, clips, strict=True):
        _say(f"\n{name}  {clip.name!r}")
        try:
            check_sources(args.save, clip)
            result = _measure(model, [clip], args)
            _save(result, args.output / name, args, clip)
            results.append((name, result))
        except Exception as error:  # of one clip, whatever it is; the others go on
            if "traceback" in args:
                traceback.print_exc()
            _say(f"not measured: {_reason(error)}")
            results.append((name, None))
    measured = [result for _, result in results if result is not None]
    if not measured:
        raise ValueError(f"{args.clips[0]}: none of its {len(clips)} files could be measured, for the reasons above.")
    write_table(args.output / "summary.csv", summary_rows(results))  # last: a sign that all were gone through
    _say(f"\n{len(measured)} of {len(clips)} clips measured: {args.output / 'summary.csv'}")
    return 0 if len(measured) == len(clips) and not any(result.exit_code for result in measured) else 1


def _measure(model: CineModel, clips: list[Path], args: argparse.Namespace) -> CineResult:
    from tqdm import tqdm

    from nnunet_echo.cine.study import measure_study

    with tqdm(unit="frame", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return measure_study(
            model,
            clips,
            views=args.view,
            spacing=tuple(args.spacing) if args.spacing else None,
            fps=args.fps,
            region=args.region,
            smooth=args.smooth,
            progress=progress,
        )


def _save(result: CineResult, out: Path, args: argparse.Namespace, source: Path) -> None:
    """Write a result, and then print what is in it."""
    from nnunet_echo.cine.sr import measured_codes

    wanted = list(args.save)
    left_out = "sr" in wanted and not measured_codes(result)
    if left_out:
        wanted.remove("sr")
    lines = list(_describe(result))
    if left_out:
        lines.insert(0, "sr.dcm: left out, since a structured report needs a number, and all were refused")
    result.save(out, wanted, source=source)
    _say("\n".join(lines))
    _say(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def _describe(result: CineResult) -> Iterator[str]:
    from nnunet_echo.cine.report import number_rows

    yield from map(_describe_loop, result.loops)
    rows = number_rows(result)
    width = max((len(row["title"]) for row in rows if row["value"]), default=0)
    for row in rows:
        if row["value"]:
            yield f"  {row['title']:<{width}}  {row['value']}"
    for refusal in result.refusals:
        titles = "; ".join(row["title"] for row in rows if row["refusal"] is refusal)
        yield f"  refused, {refusal.name}: {refusal.text} ({titles})"
    for flag in result.flags:
        yield f"  flag, {flag.name}: {flag.text}"


def _describe_loop(loop: Loop) -> str:
    clip, step = loop.clip, loop.step_s
    rate = f"{1 / step:.4g} a second ({clip.time_source})" if step else "frame rate not known"
    scale = "scale not known"
    if clip.spacing_mm:
        down, across = clip.spacing_mm
        scale = f"{down:.4g} x {across:.4g} mm a pixel ({clip.spacing_source})"
    beats = "no complete beat"
    if loop.complete:
        beats = f"{sum(not beat.refused for beat in loop.complete)} of {len(loop.complete)} complete beats measured"
    elif loop.beats:
        beats += ", ED and ES are the largest and the smallest frame"
    frames = f"{clip.count} frames, {rate}" if clip.count > 1 else "1 frame"
    return f"{loop.view or 'Clip'}: {frames}, {scale}; {beats}"


def _reason(error: Exception) -> str:
    """Why a clip was not measured; what the package does not raise by itself is a fault to be reported."""
    if isinstance(error, MemoryError):
        return "the memory of this computer is too small for it."
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return str(error) or type(error).__name__
    return f"the program failed ({type(error).__name__}). Please report it: --traceback shows where."


def _say(text: str) -> None:
    """Print what the terminal has letters for; where nobody reads on, as in `| head`, the work goes on in silence."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0.")
    return value
