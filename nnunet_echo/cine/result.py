"""The result of a cine: numbers, refusals and flags, and the files that hold them.

result.json     every number, or null and the refusal that names it; flags, versions, the model
beats.csv       a beat a row          frames.csv      a frame a row
masks.nii.gz    label maps (x, y, t)  overlay.*       the sector with outlines, MP4 or animated WebP
report.html     all of it in one page that needs no network

Nothing of a patient is in any of them: no name, no date, no UID, no path, no file name. sr.dcm and seg.dcm, which by
their nature have the patient of their source, are written only where asked for.
A folder appears when all its files are written, and an existing one is never added to.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from nnunet_echo import __version__
from nnunet_echo.cine.beats import Beat, Rhythm
from nnunet_echo.cine.clips.clip import Clip, Finding
from nnunet_echo.cine.curve import LvCurve
from nnunet_echo.cine.gate import Refusal, describe_doubt
from nnunet_echo.cine.masks import Masks, write_nifti
from nnunet_echo.cine.output import new_folder
from nnunet_echo.evaluation.output import Row, without_nan, write_table

NOTICE = "Research use, not a medical device."
VIEWS = ("4CH", "2CH")
SAVED = ("masks", "overlay", "report", "sr", "seg")
BY_DEFAULT = ("masks", "overlay", "report")


@dataclass(frozen=True)
class BeatResult:
    """One beat, counted from 1 in its view; NaN in mL without a scale. `refused` names why it has no numbers, or "".

    >>> BeatResult("4CH", 1, Beat(0, 9), refused="no_base").refused
    'no_base'
    """

    view: str
    number: int
    beat: Beat
    edv_ml: float = np.nan
    esv_ml: float = np.nan
    ef_percent: float = np.nan
    ef_area_length: float = np.nan
    refused: str = ""


@dataclass(frozen=True)
class Loop:
    """One clip with what was found in it: `sector` (H, W) bool; `unsmoothed` is the curve before smoothing, if any."""

    view: str
    clip: Clip
    masks: Masks
    structures: dict[str, tuple[int, ...]]
    sector: ndarray
    curve: LvCurve
    rhythm: Rhythm
    beats: tuple[BeatResult, ...]
    unsmoothed: LvCurve | None = None

    def beside(self, curve: LvCurve) -> Loop:
        """The same with the curve of masks that were not smoothed."""
        return replace(self, unsmoothed=curve)

    @property
    def complete(self) -> tuple[BeatResult, ...]:
        """The complete beats: none where ED and ES are the largest and the smallest frame of the clip."""
        return self.beats if self.rhythm.method == "beats" else ()

    @property
    def step_s(self) -> float | None:
        """Median time from frame to frame."""
        times = self.clip.times_s
        return None if times is None or len(times) < 2 else float(np.median(np.diff(times)))


@dataclass(frozen=True)
class CineResult:
    """One or two clips, measured. `numbers` that are NaN are refused: each is named by one of `refusals`.

    `identifier` is drawn at random, so that files of one result can be told to belong together.
    """

    loops: tuple[Loop, ...]
    numbers: dict[str, float]
    refusals: tuple[Refusal, ...]
    flags: tuple[Finding, ...]
    model: dict[str, str] = field(default_factory=dict)
    identifier: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        """Raise `RuntimeError` where a number is missing without a reason, or there in spite of one."""
        refused = {number for refusal in self.refusals for number in refusal.numbers}
        missing = {name for name, value in self.numbers.items() if not np.isfinite(value)}
        if refused != missing:
            raise RuntimeError(f"numbers {sorted(refused ^ missing)}: missing without a reason, or refused and there.")

    @property
    def exit_code(self) -> int:
        """0, or 1 where a number was refused; a command that reads no clip at all ends with 2."""
        return 1 if self.refusals else 0

    def refusal_of(self, number: str) -> Refusal:
        """Why a number is not there."""
        return next(refusal for refusal in self.refusals if number in refusal.numbers)

    def summary(self) -> Row:
        """The content of result.json; undefined numbers are None."""
        return {
            "nnunet_echo_cine": __version__,
            "notice": NOTICE,
            "identifier": self.identifier,
            "clips": [
                {
                    "view": loop.view,
                    "frames": loop.clip.count,
                    "rows": loop.clip.shape[0],
                    "columns": loop.clip.shape[1],
                    "time_source": loop.clip.time_source,
                    "frames_per_second": 1 / loop.step_s if loop.step_s else None,
                    "spacing_mm": loop.clip.spacing_mm,
                    "spacing_source": loop.clip.spacing_source,
                    "structures": list(loop.structures),
                    "ed_es_by": loop.rhythm.method,
                    "beats": len(loop.complete),
                    "beats_refused": sum(bool(beat.refused) for beat in loop.complete),
                    "cyclic": loop.rhythm.cyclic,
                    "irregular": loop.rhythm.irregular,
                }
                for loop in self.loops
            ],
            "numbers": {name: float(value) for name, value in self.numbers.items()},
            "refusals": [asdict(refusal) for refusal in self.refusals],
            "flags": [asdict(flag) for flag in self.flags],
            "method": "ase",
            "versions": _versions(),
            "model": self.model,
            "exit_code": self.exit_code,
        }

    def beat_rows(self) -> list[Row]:
        """Rows of beats.csv. Frames count from 1.

        A clip whose ED and ES are its largest and smallest frame has one, which says so in `ed_es_by`, and is no beat.
        """
        return [
            {
                "view": beat.view,
                "beat": beat.number if loop.complete else "",
                "ed_es_by": loop.rhythm.method,
                "ed_frame": beat.beat.ed + 1,
                "es_frame": beat.beat.es + 1,
                "next_ed_frame": "" if beat.beat.next_ed is None else beat.beat.next_ed + 1,
                "ed_s": _time(loop, beat.beat.ed),
                "es_s": _time(loop, beat.beat.es),
                "interval_s": beat.beat.duration_s,
                "edv_ml": beat.edv_ml,
                "esv_ml": beat.esv_ml,
                "ef_percent": beat.ef_percent,
                "ef_percent_area_length": beat.ef_area_length,
                "refused": beat.refused,
                "reason": describe_doubt(beat.refused) if beat.refused else "",
            }
            for loop in self.loops
            for beat in loop.beats
        ]

    def frame_rows(self) -> list[Row]:
        """Rows of frames.csv. Frames count from 1; what a clip has no column for is NaN."""
        rows: list[Row] = []
        for loop in self.loops:
            curve = loop.curve
            for frame in range(loop.clip.count):
                row: Row = {"view": loop.view, "frame": frame + 1, "time_s": _time(loop, frame)}
                row |= {curve.column(name): float(values[frame]) for name, values in curve.values.items()}
                if loop.unsmoothed is not None and "lv_area" in loop.unsmoothed.values:
                    name = f"{loop.unsmoothed.column('lv_area')}_unsmoothed"
                    row[name] = float(loop.unsmoothed.values["lv_area"][frame])
                row["anatomical_violations"] = float(curve.violations[frame])
                row["entropy"] = np.nan if curve.entropy is None else float(curve.entropy[frame])
                row["flags"] = curve.shapes[frame].flag
                rows.append(row)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name, np.nan) for name in columns} for row in rows]

    def save(self, out: str | Path, save: Iterable[str] = BY_DEFAULT, *, source: Any = None) -> Path:
        """Write result.json, frames.csv, beats.csv and what `save` names of `SAVED` to the new folder `out`.

        `source` is the DICOM file of the clip, its path or a pydicom `Dataset`, for "sr" and "seg". Raises ValueError
        for other names and without `source`, and as `output.check_new` for `out`.
        """
        out, wanted = Path(out), list(dict.fromkeys(save))
        if unknown := [name for name in wanted if name not in SAVED]:
            raise ValueError(f"save={unknown[0]!r}: must be among {SAVED}.")
        if {"sr", "seg"} & set(wanted) and source is None:
            raise ValueError("source=None: SR and SEG refer to the DICOM file of the clip. Give it, or leave them out.")
        with new_folder(out) as unfinished:
            self._write(unfinished, wanted, source)
        return out

    def _write(self, folder: Path, wanted: list[str], source: Any) -> None:
        text = json.dumps(_for_json(self.summary()), indent=2, allow_nan=False)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8")
        write_table(folder / "frames.csv", self.frame_rows())
        if rows := self.beat_rows():
            write_table(folder / "beats.csv", rows)
        for loop in self.loops:
            end = f"_{loop.view or 'second'}" if len(self.loops) > 1 else ""
            if "masks" in wanted:
                write_nifti(folder / f"masks{end}.nii.gz", loop.masks, loop.clip.spacing_mm, loop.step_s)
            if "overlay" in wanted:
                from nnunet_echo.cine.overlay import write_overlay

                write_overlay(folder / f"overlay{end}", loop)
        if "report" in wanted:
            from nnunet_echo.cine.report import write_report

            write_report(folder / "report.html", self)
        if "seg" in wanted:
            from nnunet_echo.cine.seg import write_seg

            write_seg(folder / "seg.dcm", self.loops[0], source)
        if "sr" in wanted:
            from nnunet_echo.cine.sr import write_sr

            write_sr(folder / "sr.dcm", self, source)


def _time(loop: Loop, frame: int) -> float:
    return np.nan if loop.clip.times_s is None else float(loop.clip.times_s[frame])


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"nnunet-echo": __version__}
    for name in ("nnunetv2", "torch", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _for_json(value: Any) -> Any:
    """Lists and tuples as well: None in place of NaN."""
    if isinstance(value, (list, tuple)):
        return [_for_json(item) for item in value]
    return without_nan({key: _for_json(item) for key, item in value.items()} if isinstance(value, dict) else value)
