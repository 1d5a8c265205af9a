"""Every dataset behind the one interface: found by the command, described in full, with a place of its own."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from nnunet_echo.cli.main import main
from nnunet_echo.data.reader import Reader
from nnunet_echo.dataset_conversion import readers

FOLDER = Path(__file__).resolve().parents[2] / "dataset_conversion"
READERS = readers()


def test_every_folder_with_a_reader_is_found() -> None:
    with_a_reader = [path for path in FOLDER.glob("*/__init__.py") if "\nREADER = " in path.read_text()]
    assert len(READERS) == len(with_a_reader)
    assert {"camus", "echonet", "images"} <= set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_says_all_that_the_command_needs(name: str) -> None:
    reader = READERS[name]
    assert reader.name == name and reader.summary
    assert all(option.kw_only for option in fields(reader))
    options = reader()  # every option has a default
    assert options.mode == next(iter(reader.modes)) and options.split == next(iter(reader.splits))
    json.dumps(options.dataset_json())
    for mode in reader.modes:
        content = reader(mode=mode).dataset_json()
        assert content["name"] in reader.dataset_ids
        assert "patient" in re.compile(content["case_id_pattern"]).groupindex
        assert {"description", "reference", "licence", "channel_names", "labels", "file_ending"} <= set(content)
    for option in ("mode", "split"):
        with pytest.raises(ValueError, match=f"{option}='random': expected one of"):
            reader(**{option: "random"})


def test_no_two_datasets_share_an_id_or_a_name() -> None:
    pairs = [pair for reader in READERS.values() for pair in reader.dataset_ids.items()]
    assert len({name for name, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)


def test_the_command_lists_all_datasets_and_the_options_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {reader.summary}" in shown for name, reader in READERS.items())
    for name, reader in READERS.items():
        with pytest.raises(SystemExit):
            main(["convert", name, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert all(f"--{option.name.replace('_', '-')}" in shown for option in fields(reader))
        assert all(f"{number} for {dataset}" in shown for dataset, number in reader.dataset_ids.items())


def test_a_missing_source_is_an_answer_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in READERS:
        assert main(["convert", name, str(tmp_path / "nowhere"), "--raw", str(tmp_path)]) == 2
        assert "nowhere" in capsys.readouterr().err


def test_a_new_dataset_needs_what_the_interface_asks_for() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Reader(mode="frames", split="5fold")
