"""report.html: one result as one file that needs no network: the loop, outlines, curves in step with it, beats, flags.

The page is page/cine.html.jinja with its own cine.css and cine.js, and with the leaderboard's report.css and charts.js.
It holds the sector's pixels alone, frame by frame as WebP; of long clips every second, third, ... frame, so that the
file stays below `LIMIT_BYTES`. Everything is escaped, and its policy allows no request.
"""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup
from PIL import Image

from nnunet_echo.cine.overlay import sector_frames, shown_structures
from nnunet_echo.cine.result import NOTICE, CineResult, Loop
from nnunet_echo.drawing.outlines import svg_path
from nnunet_echo.drawing.style import structure_colours
from nnunet_echo.evaluation.output import Row

LIMIT_BYTES = 5_000_000
_LOOP_BYTES = 4_000_000  # of pictures and outlines, of all loops together
_MOST_FRAMES = 400  # shown; no eye follows more
# Side in pixels and quality of WebP, from what is wanted to what always fits.
_SIZES = ((560, 60), (480, 50), (400, 45), (320, 40), (256, 30))

# Number -> its words, unit and digits.
TITLES = {
    "ef_percent": ("Ejection fraction", "%", 0),
    "ef_percent_lowest": ("Ejection fraction, lowest beat", "%", 0),
    "ef_percent_highest": ("Ejection fraction, highest beat", "%", 0),
    "ef_percent_unsmoothed": ("Ejection fraction without smoothing", "%", 0),
    "ef_percent_biplane": ("Ejection fraction, biplane", "%", 0),
    "heart_rate": ("Heart rate", "/min", 0),
    "edv_ml": ("End-diastolic volume", "mL", 0),
    "esv_ml": ("End-systolic volume", "mL", 0),
    "edv_ml_biplane": ("End-diastolic volume, biplane", "mL", 0),
    "esv_ml_biplane": ("End-systolic volume, biplane", "mL", 0),
    "la_area_mm2": ("Left atrium, largest area", "mm²", 0),
    "la_volume_ml": ("Left atrium, largest volume", "mL", 0),
    "wall_thickness_ed_mm": ("Wall, end diastole", "mm", 1),
}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("nnunet_echo.cine", "page"), PackageLoader("nnunet_echo.leaderboard", "page")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment


@cache
def _inline() -> dict[str, Markup]:
    """What the page has between <style> and </style>, and between <script> and </script>."""
    files = {"style": ("report.css", "cine.css"), "script": ("charts.js", "cine.js")}
    return {
        kind: Markup("\n".join(_environment().get_template(name).render() for name in names))
        for kind, names in files.items()
    }


@cache
def report_policy() -> str:
    """The page's Content-Security-Policy: no request, and of scripts and styles its own alone, told by their hashes."""
    own = {kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for kind, text in _inline().items()}
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{own['style']}'; script-src 'sha256-{own['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )


def write_report(path: Path, result: CineResult) -> None:
    """Write the page of a result to the new file `path`."""
    loops = [loop_data(loop, _LOOP_BYTES // len(result.loops)) for loop in result.loops]
    text = (
        _environment()
        .get_template("cine.html.jinja")
        .render(
            **_inline(),
            policy=Markup(report_policy()),
            result=result,
            summary=result.summary(),
            notice=NOTICE,
            numbers=number_rows(result),
            beats=result.beat_rows(),
            data={"loops": loops, "colours": structure_colours(shown_structures(result.loops[0]))},
            loops=list(zip(result.loops, loops, strict=True)),
        )
    )
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def number_rows(result: CineResult) -> list[Row]:
    """Title, text of the value and reason of each number, in the order of `TITLES`; a second view's come last."""
    rows: list[Row] = []
    for end in ("", "_second"):
        for name, (title, unit, digits) in TITLES.items():
            value = result.numbers.get(name + end)
            if value is None:
                continue
            known = bool(np.isfinite(value))
            shown = title if not end else f"{title}, {result.loops[1].view or 'second clip'}"
            rows.append(
                {
                    "number": name + end,
                    "title": shown,
                    "value": f"{value:.{digits}f} {unit}" if known else "",
                    "refusal": None if known else result.refusal_of(name + end),
                }
            )
    return rows


def loop_data(loop: Loop, limit: int) -> Row:
    """What cine.js shows of one loop, in at most about `limit` bytes: pictures, outlines, curves, beats."""
    structures, count = shown_structures(loop), loop.clip.count
    shown = range(0, count, -(-count // _MOST_FRAMES))
    outlines = [{name: svg_path(np.isin(loop.masks[k], v)) for name, v in structures.items()} for k in shown]
    room = limit - sum(len(path) for paths in outlines for path in paths.values())
    pictures: list[str] = []
    fits = False
    for side, quality in _SIZES:
        pictures, fits = _pictures(loop, shown, side, quality, room)
        if fits:
            break
    if not fits:  # fewer frames, of the smallest size
        wanted = max(1, int(0.8 * room / (sum(map(len, pictures)) / len(pictures))))
        step = -(-len(shown) // wanted)
        shown, outlines = shown[::step], outlines[::step]
        pictures, _ = _pictures(loop, shown, *_SIZES[-1], limit)
    curve = loop.curve
    down, across = loop.clip.spacing_mm or (1.0, 1.0)
    times = loop.clip.times_s
    return {
        "view": loop.view,
        "width": loop.clip.shape[1],
        "height": loop.clip.shape[0],
        "aspect": loop.clip.shape[1] * across / (loop.clip.shape[0] * down),
        "frames": list(shown),
        "count": count,
        "pictures": pictures,
        "outlines": outlines,
        "times": [round(float(t), 4) for t in times] if times is not None else None,
        "curves": {
            curve.column(name): _rounded(values)
            for name, values in curve.values.items()
            if name in ("lv_area", "lv_volume", "la_area")
        },
        "unsmoothed": {
            loop.unsmoothed.column(name): _rounded(loop.unsmoothed.values[name])
            for name in ("lv_area", "lv_volume")
            if loop.unsmoothed is not None and name in loop.unsmoothed.values
        }
        if loop.unsmoothed is not None
        else {},
        "beats": [[b.beat.ed, b.beat.es, b.beat.next_ed, bool(b.refused)] for b in loop.beats],
    }


def _pictures(loop: Loop, shown: range, side: int, quality: int, room: int) -> tuple[list[str], bool]:
    """The frames `shown` as data URLs, and whether they have room; where they have not, those that had and one more."""
    pictures: list[str] = []
    for k, frame in enumerate(sector_frames(loop)):
        if k in shown:
            pictures.append(_data_url(frame, side, quality))
            room -= len(pictures[-1])
        if room < 0:
            return pictures, False
    return pictures, True


def _data_url(frame: np.ndarray, side: int, quality: int) -> str:
    picture = Image.fromarray(frame)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 2) if np.isfinite(value) else None for value in values]
