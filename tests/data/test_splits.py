"""Splits by patient: stratified folds, 7:1:2 with a seed, a list in a file; through the converters, too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from camus_download import CASES, convert, load, table

from nnunet_echo.cli.main import main
from nnunet_echo.data.splits import five_folds, seven_one_two, split_of_file, splits_by_patient
from nnunet_echo.dataset_conversion.camus.reader import Camus

pytest_plugins = ("camus_download",)
PEOPLE = [f"A_p{number:03d}" for number in range(500)]


def sides(folds: list[dict[str, list[str]]]) -> list[dict[str, set[str]]]:
    return [{side: set(names) for side, names in fold.items()} for fold in folds]


def test_splits_by_patient_hold_for_any_patients_and_strata() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        count, folds = int(rng.integers(5, 80)), int(rng.integers(2, 6))
        patients = [f"p{number}" for number in rng.permutation(1000)[:count]]
        strata = {patient: (str(rng.integers(4)), str(rng.integers(3))) for patient in patients}
        splits = splits_by_patient(patients, strata, folds, seed=int(rng.integers(100)))
        assert Counter(patient for fold in splits for patient in fold["val"]) == Counter(patients)
        for fold in splits:
            assert set(fold["train"]) == set(patients) - set(fold["val"])
        sizes = [len(fold["val"]) for fold in splits]
        assert max(sizes) - min(sizes) <= 1
        for stratum in set(strata.values()):
            spread = [sum(strata[patient] == stratum for patient in fold["val"]) for fold in splits]
            assert max(spread) - min(spread) <= 1


def test_splits_by_patient_depend_on_the_seed_and_not_on_the_order() -> None:
    patients = [f"p{number}" for number in range(40)]
    strata = dict.fromkeys(patients, ("all",))
    assert splits_by_patient(patients, strata) == splits_by_patient(patients[::-1], strata)
    assert splits_by_patient(patients, strata, seed=1) != splits_by_patient(patients, strata, seed=2)
    with pytest.raises(ValueError, match="n_splits is 5 for 3 patients"):
        splits_by_patient(patients[:3], strata)


@pytest.mark.parametrize(
    ("count", "expected"), [(500, (350, 50, 100)), (10, (7, 1, 2)), (98, (68, 10, 20)), (3, (1, 1, 1))]
)
def test_seven_one_two_has_its_shares_of_patients(count: int, expected: tuple[int, int, int]) -> None:
    people = set(PEOPLE[:count])
    split = seven_one_two(people, seed=1)
    (fold,) = sides(split.make_folds(people - split.test))
    assert (len(fold["train"]), len(fold["val"]), len(split.test)) == expected
    assert not fold["train"] & fold["val"] and fold["train"] | fold["val"] | split.test == people


def test_seven_one_two_depends_on_the_seed_and_not_on_the_order() -> None:
    assert seven_one_two(PEOPLE, 1).test == seven_one_two(PEOPLE[::-1], 1).test
    drawn = [seven_one_two(PEOPLE, seed).test for seed in range(200)]
    assert len(set(drawn)) == 200
    often = Counter(name for test in drawn for name in test)  # binomial, 200 x 0.2: 40 +- 5.7
    assert len(often) == 500 and 15 < min(often.values()) <= max(often.values()) < 70
    with pytest.raises(ValueError, match="needs at least 3 patients with masks; there are 2"):
        seven_one_two(PEOPLE[:2], 1)


def test_five_folds_follow_the_seed() -> None:
    strata = dict.fromkeys(PEOPLE, ())
    first, again, other = (five_folds(PEOPLE, strata, seed=seed).make_folds(set(PEOPLE)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_list_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "\ufeffsubset,remark,patient\r\ntrain,x,p000\r\nval, ,A_p001\r\ntest,,p002\r\ntrain,, p003 \r\ntrain,,p777\r\n",
        encoding="utf-8",
    )
    split = split_of_file(path, PEOPLE[:6])
    assert split.test == {"A_p002"}
    assert split.make_folds(set(PEOPLE[:6]) - split.test) == [{"train": ["A_p000", "A_p003"], "val": ["A_p001"]}]
    assert [(note.kind, note.subject) for note in split.warnings] == [
        ("listed patient absent", "split"),
        ("patient in no list", "A_p004"),
        ("patient in no list", "A_p005"),
    ]
    assert split.warnings[0].message.endswith("in the source: p777.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,subset\np000,train\np000,val\n", "line 3: A_p000 is in line 2 already"),
        ("patient,subset\np000,train\nA_p000,train\n", "line 3: A_p000 is in line 2 already"),
        ("patient,subset\np000,valid\n", "line 2: subset is 'valid'; it must be train, val, test"),
        ("patient,subset\np000\n", "line 2: subset is ''"),
        ("name,subset\np000,train\n", "must name the columns patient, subset"),
        ("", "must name the columns patient, subset"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        split_of_file(path, PEOPLE)


def by_file(tmp_path: Path, rows: str) -> dict[str, str]:
    (tmp_path / "list.csv").write_text(f"patient,subset\n{rows}")
    return {"split": "file", "split_file": str(tmp_path / "list.csv")}


def test_a_conversion_with_a_list_in_a_file(source: Path, raw: Path, tmp_path: Path) -> None:
    report = convert(source, **by_file(tmp_path, "patient0007,train\npatient0001,val\npatient0003,test\n"))
    (fold,) = load(report.folder, "splits_final.json")
    assert {side: {case[:17] for case in cases} for side, cases in fold.items()} == {
        "train": {"CAMUS_patient0007"},
        "val": {"CAMUS_patient0001"},
    }
    rows = table(report.folder)
    assert {row["patient"] for row in rows.values() if row["split"] == "ts"} == {"CAMUS_patient0003"}
    assert report.training_cases == CASES - 4
    assert [note.subject for note in report.warnings] == [f"CAMUS_patient000{number}" for number in (2, 4, 5, 6)]
    assert report.options["split_file"] == "list.csv"
    with pytest.raises(ValueError, match="no training or no validation patient"):
        convert(source, **by_file(tmp_path, "patient0007,train\npatient0099,val\n"))


def test_a_conversion_with_seven_one_two(source: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = []
    for seed in (0, 1, 0):
        options = ["--split", "7:1:2", "--seed", str(seed), "--workers", "1", "--replace"]
        assert main(["convert", "camus", str(source), *options]) == 0
        (fold,) = load(raw / "Dataset751_CAMUS", "splits_final.json")
        test = {row["patient"] for row in table(raw / "Dataset751_CAMUS").values() if row["split"] == "ts"}
        people = {side: {case[:17] for case in cases} for side, cases in fold.items()}
        assert (len(people["train"]), len(people["val"]), len(test)) == (5, 1, 1)
        assert len(people["train"] | people["val"] | test) == 7
        drawn.append((people["val"], test))
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize("options", [{"split": "file"}, {"split_file": "x.csv"}])
def test_a_file_and_its_split_go_together(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="go together"):
        Camus(**options)


def test_splits_are_the_same_in_every_process() -> None:
    """Fixed names: a draw by Python's own hash differs from one process to the next."""
    assert sorted(seven_one_two(PEOPLE, 1).test)[:4] == ["A_p004", "A_p007", "A_p010", "A_p014"]
    folds = splits_by_patient(PEOPLE, dict.fromkeys(PEOPLE, ()), seed=1)
    assert [fold["val"][0] for fold in folds] == ["A_p004", "A_p002", "A_p000", "A_p003", "A_p009"]
