"""The EchoNet-Dynamic converter on damaged downloads: each video is converted as ever, or refused for a reason."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from camus_download import tree
from echonet_download import CASES, DATASET, FIRST, ODD, change_rows, convert, regular_videos

from nnunet_echo.data.check import check_dataset

pytest_plugins = ("echonet_download",)

SECOND = regular_videos()[1]
LAST = FIRST.frames - 1
Damage = Callable[[Path], object]


@pytest.fixture(scope="session")
def undamaged(pristine_echonet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of all images of an undisturbed conversion."""
    folder = convert(pristine_echonet, raw=tmp_path_factory.mktemp("undamaged")).folder
    return {name: digest for name, digest in tree(folder).items() if name.endswith(".nii.gz")}


def on_video(damage: Damage) -> Damage:
    return lambda source: damage(source / "Videos" / f"{FIRST.name}.avi")


def patch(find: bytes, replace: bytes, nth: int = 0) -> Damage:
    """Write other bytes over the start of the n-th place where `find` is."""

    def apply(path: Path) -> None:
        data = path.read_bytes()
        place = [match.start() for match in re.finditer(re.escape(find), data)][nth]
        path.write_bytes(data[:place] + replace + data[place + len(replace) :])

    return apply


def drop_frame(path: Path) -> None:
    """The file is whole, but one frame shorter."""
    data = path.read_bytes()
    movie = data.index(b"movi")
    length = 8 + sum(divmod(struct.unpack_from("<I", data, movie + 8)[0] + 1, 2)[:1]) * 2
    sizes = struct.pack("<I", struct.unpack_from("<I", data, movie - 4)[0] - length)
    whole = data[: movie - 4] + sizes + b"movi" + data[movie + 4 + length :]
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def on_tracing(change: Callable[[list[str]], list[str]], frame: int | None = FIRST.ed) -> Damage:
    return change_rows("VolumeTracings.csv", change, frame=frame)


def edit(pattern: str, text: str) -> Callable[[list[str]], list[str]]:
    """Replace in the fifth of the rows."""
    return lambda rows: [re.sub(pattern, text, row) if number == 4 else row for number, row in enumerate(rows)]


def to_frame(frame: int | str) -> Callable[[list[str]], list[str]]:
    return lambda rows: [f"{row.rpartition(',')[0]},{frame}" for row in rows]


def of_other_frame(rows: list[str]) -> list[str]:
    """Both frames carry the tracing of the first of them."""
    frame = rows[-1].rpartition(",")[2]
    return rows[:21] + [f"{row.rpartition(',')[0]},{frame}" for row in rows[:21]]


def in_list(pattern: str, text: str) -> Damage:
    return change_rows("FileList.csv", lambda rows: [re.sub(pattern, text, rows[0])])


def add_to_list(pattern: str, text: str) -> Damage:
    return change_rows("FileList.csv", lambda rows: [rows[0], re.sub(pattern, text, rows[0])])


VIDEO_DAMAGES = [
    (lambda p: os.truncate(p, p.stat().st_size // 2), "truncated: "),
    (lambda p: os.truncate(p, p.stat().st_size - 1), "truncated: "),
    (lambda p: p.write_bytes(b""), "truncated or damaged at byte 0"),
    (lambda p: p.write_text("<html>404 not found</html>"), "not an AVI file"),
    (lambda p: p.unlink(), "is missing"),
    (lambda p: replace(p, Path.mkdir), "is missing or not a file"),
    (lambda p: replace(p, lambda q: q.symlink_to(q)), "is missing or not a file"),
    (lambda p: replace(p, os.mkfifo), "is missing or not a file"),
    (patch(b"MJPG", b"XVID", 1), "its codec is 'XVID', not MJPG"),
    (patch(b"movi", b"iovm"), "holds no frames"),
    (patch(b"00dc", b"00dc\xff\xff", FIRST.frames - 2), "damaged at byte"),
    (patch(b"00dc", b"\0\0\0\0", 3), "damaged at byte"),
    (patch(b"00dc", b"00dc\0\0\0\0", 3), "damaged at byte"),
    (drop_frame, f"{LAST} frames where {LAST + 1} are listed"),
    (lambda p: shutil.copy(p.with_name(f"{SECOND.name}.avi"), p), f"{SECOND.frames} frames where {FIRST.frames}"),
]
VIDEO_DAMAGES = [(on_video(damage), message) for damage, message in VIDEO_DAMAGES]

TABLE_DAMAGES = [
    (on_tracing(lambda rows: rows[:-1]), "it has 20 rows instead of 21"),
    (on_tracing(lambda rows: rows + rows[-1:]), "it has 22 rows instead of 21"),
    (on_tracing(lambda rows: rows + rows), "it has 42 rows instead of 21"),
    (on_tracing(lambda rows: rows[::-1]), "its first row is not the long axis"),
    (on_tracing(lambda rows: rows[1:] + rows[:1]), "its first row is not the long axis"),
    (on_tracing(lambda rows: [*rows[:5], rows[6], rows[5], *rows[7:]]), "not in order along the long axis"),
    (on_tracing(lambda rows: []), "1 traced frames in VolumeTracings.csv, not one at ED"),
    (on_tracing(lambda rows: [], None), "0 traced frames in VolumeTracings.csv"),
    (on_tracing(lambda rows: rows + to_frame(0)(rows)), "3 traced frames"),
    (on_tracing(of_other_frame, None), "are equally large"),
    (on_tracing(edit(r"avi,[\d.]+", "avi,nan")), "not four coordinates and a frame: X1 'nan'"),
    (on_tracing(edit(r"avi,[\d.]+", "avi,inf")), "X1 'inf'"),
    (on_tracing(edit(r"avi,[\d.]+", "avi,")), "X1 ''"),
    (on_tracing(edit(r"avi,[\d.]+,", "avi,")), "X1 ''"),
    (on_tracing(edit(r"avi,[\d.]+", "avi,5,5")), "X1 ''"),
    (on_tracing(edit(r"\d+$", "4.5")), "Frame '4.5'"),
    (on_tracing(edit(r"\d+$", "-1")), "Frame '-1'"),
    (on_tracing(edit(r"\d+$", "systole")), "Frame 'systole'"),
    (in_list("TRAIN", "FOO"), "Split is 'FOO', not TRAIN, VAL, TEST"),
    (in_list(",TRAIN", ""), "Split is ''"),
    (in_list("112,112", "768,1024"), None),
    (in_list(f",{FIRST.frames},", f",{FIRST.frames + 1},"), f"{FIRST.frames} frames where {FIRST.frames + 1} are"),
    (add_to_list("TRAIN", "TEST"), "names it again"),
    (add_to_list("^0X", "0x"), "names it again"),
]


def check_the_rest(folder: Path, undamaged: dict[str, str], lost: set[str]) -> None:
    """What is in the dataset is what it always was, except for these cases, which are not in it at all."""
    images = {name: digest for name, digest in tree(folder).items() if name.endswith(".nii.gz")}
    kept = {name: digest for name, digest in undamaged.items() if not any(case in name for case in lost)}
    assert images == kept and len(undamaged) - len(kept) == 2 * len(lost)
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]


@pytest.mark.parametrize(("damage", "message"), VIDEO_DAMAGES + TABLE_DAMAGES)
def test_a_damaged_video_is_refused_by_name_and_the_rest_converted(
    echonet: Path, raw: Path, undamaged: dict[str, str], damage: Damage, message: str | None
) -> None:
    damage(echonet)
    report = convert(echonet)
    texts = [note.message for note in report.refused if FIRST.name in note.subject]
    assert report.exit_code == 1
    lost = {f"{FIRST.name}_{phase}" for phase in ("ED", "ES")} if message else set()
    assert bool(texts) == bool(message) and all(message in text for text in texts)
    assert all(text in (raw / DATASET / "conversion_report.txt").read_text() for text in texts)
    check_the_rest(raw / DATASET, undamaged, lost)


@pytest.mark.parametrize(
    ("frame", "message"),
    [(LAST, None), (LAST + 1, f"it has frames 0 to {LAST}"), (10**12, f"it has frames 0 to {LAST}")],
)
def test_the_last_frame_is_there_and_the_next_is_not(
    echonet: Path, raw: Path, undamaged: dict[str, str], frame: int, message: str | None
) -> None:
    on_tracing(to_frame(frame))(echonet)
    report = convert(echonet)
    texts = [note.message for note in report.refused if note.subject == f"ECHONET_{FIRST.name}_ED"]
    if message is None:
        assert not texts and report.training_cases + report.test_cases == CASES
    else:
        assert len(texts) == 1 and message in texts[0]
        check_the_rest(raw / DATASET, undamaged, {f"{FIRST.name}_ED"})


def test_a_frame_that_is_no_jpeg_costs_its_case_alone(echonet: Path, raw: Path, undamaged: dict[str, str]) -> None:
    on_video(patch(b"\xff\xd8\xff", b"\0\0\0", FIRST.ed))(echonet)
    report = convert(echonet)
    (note,) = [note for note in report.refused if FIRST.name in note.subject]
    assert f"frame {FIRST.ed} is not a complete JPEG" in note.message
    check_the_rest(raw / DATASET, undamaged, {f"{FIRST.name}_ED"})


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "a/b", "C:\\evil", "", "a b", "0X\u0661", "x\0y"])
@pytest.mark.parametrize("file", ["FileList.csv", "VolumeTracings.csv"])
def test_a_path_in_a_table_is_no_name(
    echonet: Path, raw: Path, undamaged: dict[str, str], file: str, name: str
) -> None:
    change_rows(file, lambda rows: rows + [re.sub(r"^[^,]+", lambda _: name, row) for row in rows])(echonet)
    shutil.copy(echonet / "Videos" / f"{FIRST.name}.avi", echonet.parent / "evil.avi")
    before = set(tree(raw.parent))
    if "\0" in name:  # csv refuses it before Python 3.11
        pytest.importorskip("tomllib")
    report = convert(echonet)
    (note,) = [note for note in report.refused if note.kind == "unusable row"]
    assert f"FileName is {name!r}, not a plain name" in note.message and file in note.subject
    assert {path for path in set(tree(raw.parent)) - before if not path.startswith("raw/")} == set()
    check_the_rest(raw / DATASET, undamaged, set())


def test_a_row_that_is_there_twice_counts_once(echonet: Path, raw: Path, undamaged: dict[str, str]) -> None:
    add_to_list("$", "")(echonet)
    report = convert(echonet)
    assert len(report.refused) == ODD and "row twice" in {note.kind for note in report.warnings}
    check_the_rest(raw / DATASET, undamaged, set())


def test_an_unknown_ejection_fraction_is_a_warning(echonet: Path, raw: Path, undamaged: dict[str, str]) -> None:
    in_list(r"^([^,]+),[\d.]+", r"\1,high")(echonet)
    report = convert(echonet, split="5fold")
    (note,) = [note for note in report.warnings if note.kind == "EF unknown"]
    assert note.subject == FIRST.name and "EF is 'high'" in note.message
    check_the_rest(raw / DATASET, undamaged, set())


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda source: (source / name).write_bytes(change((source / name).read_bytes()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda source: (source / "FileList.csv").unlink(), "no FileList.csv below"),
        (lambda source: (source / "VolumeTracings.csv").unlink(), "has no VolumeTracings.csv beside"),
        (lambda source: shutil.copytree(source, source / "copy"), "Give the folder of one copy"),
        (rewrite("FileList.csv", lambda data: b""), "must name the columns FileName, EF"),
        (rewrite("FileList.csv", lambda data: data.partition(b"\n")[2]), "must name the columns"),
        (rewrite("VolumeTracings.csv", lambda data: data.replace(b"X1", b"X", 1)), "X1 is not there, or twice"),
        (rewrite("VolumeTracings.csv", lambda data: data.replace(b"Y1", b"X1", 1)), "X1, Y1 is not there, or twice"),
        (rewrite("FileList.csv", lambda data: data.decode().encode("utf-16")), "in UTF-8"),
        (rewrite("FileList.csv", lambda data: data + b'"' + b"x" * 200_000), "cannot be read (field larger than"),
        (
            rewrite("FileList.csv", lambda data: data.replace(b",VAL", b",TRAIN")),
            "no training or no validation patient",
        ),
    ],
)
def test_what_cannot_be_read_at_all_is_one_error_and_touches_nothing(
    echonet: Path, raw: Path, damage: Damage, message: str
) -> None:
    damage(echonet)
    before = tree(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        convert(echonet)
    assert tree(raw) == before


def test_bytes_that_are_no_utf8_cost_their_row_alone(echonet: Path, raw: Path, undamaged: dict[str, str]) -> None:
    name = FIRST.name.encode()
    rewrite("VolumeTracings.csv", lambda data: data.replace(name, name[:-1] + b"\xe9", 1))(echonet)
    report = convert(echonet)
    texts = " ".join(note.message for note in report.refused)
    assert "20 rows instead of 21" in texts and "\\xe9.avi', not a plain name" in texts
    check_the_rest(raw / DATASET, undamaged, {f"{FIRST.name}_{phase}" for phase in ("ED", "ES")})
