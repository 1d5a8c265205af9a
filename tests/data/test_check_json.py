"""`check` on JSON files of any shape and on names of any kind: a finding, never a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from noise_dataset import dataset, problems

from nnunet_echo.cli.main import main

ODD = [
    None,
    True,
    5,
    -1.5,
    1e400,
    float("nan"),
    "",
    "x",
    "(",
    "(?P<patient>",
    "(?P<patient>.)?.*",
    [],
    [[]],
    [1, 2],
    ["a"],
    {},
    {"a": 1},
    {"0": 5},
    {"background": {}},
    [{"train": [1], "val": [2]}],
    [{"train": "c0", "val": "c1"}],
    [{"train": [None], "val": [["c1"]]}],
    {"background": 0, "a": True},
    {"background": 0, "": "1"},
]


@pytest.mark.parametrize("name", ["dataset.json", "splits_final.json", "conversion_report.json"])
def test_json_of_any_shape_is_a_finding(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dataset(tmp_path / "Dataset001_X", case_id_pattern="(?P<patient>c.)")
    (folder / "splits_final.json").write_text('[{"train": ["c0"], "val": ["c1", "c2"]}]')
    (folder / "conversion_report.json").write_text('{"finished": true}')
    assert problems(folder) == []
    for content in [*map(json.dumps, ODD), "", "{", "\x00", "[" * 100_000, '{"a": ' * 100_000, "9" * 5000]:
        (folder / name).write_text(content)
        assert problems(folder), content[:80]
    for data in (b"\xff\xfe{}", b"\xe9"):
        (folder / name).write_bytes(data)
        assert f"{name} cannot be read" in "\n".join(problems(folder))
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{name} cannot be read" in "\n".join(problems(folder))


@pytest.mark.parametrize(
    "key",
    [
        "labels",
        "channel_names",
        "numTraining",
        "file_ending",
        "case_id_pattern",
        "sequence",
        "spacing_unit",
        "regions_class_order",
        "overwrite_image_reader_writer",
        "refused",
        "finished",
        "files",
    ],
)
def test_any_value_of_any_key_is_no_crash(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dataset(tmp_path / "Dataset001_X")
    name = "conversion_report.json" if key in ("refused", "finished", "files") else "dataset.json"
    content = json.loads((folder / "dataset.json").read_text()) if name == "dataset.json" else {"finished": True}
    for value in ODD:
        (folder / name).write_text(json.dumps({**content, key: value}))
        assert main(["check", str(folder), "--workers", "1"]) in (0, 1, 2)
        out, error = capsys.readouterr()
        assert out or "error: " in error


def test_names_that_are_no_utf8_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = dataset(tmp_path / "Dataset001_X")
    (folder / "imagesTr" / os.fsdecode(b"caf\xe9.txt")).write_text("")
    main(["check", str(folder), "--workers", "1"])
    assert r"imagesTr/caf\udce9.txt: not an image" in capsys.readouterr().out
