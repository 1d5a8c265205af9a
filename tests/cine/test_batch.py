"""Which folders are many clips, and which one clip of pictures."""

from __future__ import annotations

from pathlib import Path

from nnunet_echo.cine.batch import is_many, list_clips


def test_a_folder_of_clips_or_of_pictures(tmp_path: Path) -> None:
    def many(*names: str) -> bool:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name in names:
            (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
        return is_many(folder)

    assert not many() and not is_many(tmp_path / "none") and not is_many(Path(__file__))
    assert not many("1.png") and not many("1.png", "2.jpg")
    assert not many("1.png", "2.png", "Thumbs.db", ".DS_Store", "desktop.ini")
    assert not many("1.png", "2.png", "notes.txt") and not many("1.png", "2.png", "sub.png/")
    assert many("1.dcm") and many("1.dcm", "2.dcm", "screen.png") and many("1.dcm", "screen.png")
    assert many("frames_1/", "frames_2/") and many("frames.png/")


def test_what_systems_leave_is_no_clip(tmp_path: Path) -> None:
    for name in ("10.dcm", "9.dcm", "Thumbs.db", ".DS_Store", "a.mhd", "a.raw", "b.raw"):
        (tmp_path / name).touch()
    assert [path.name for path in list_clips(tmp_path)] == ["9.dcm", "10.dcm", "a.mhd", "b.raw"]
