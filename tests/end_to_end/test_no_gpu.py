"""docs/how-to/no-gpu.md: its commands as written, from a phantom in CAMUS's place to ejection fractions."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from pages import commands, run_commands

from nnunet_echo.dataset_conversion.camus.phantom import write_camus

PAGE = "how-to/no-gpu.md"
# What a toy size takes in place of what the page says.
TOY = {
    "UMambaBot_5epochs_25iterations": "NoMamba_1epochs_2iterations",
    "--batch 4": "--batch 2 --features 4 8 --steps 1",
    "export nnUNet_def_n_proc=2 ": "export nnUNet_def_n_proc=1 ",
}


def test_one_trainer_and_one_configuration_throughout() -> None:
    script = "\n".join(commands(PAGE))
    assert len(set(re.findall(r"-tr (\S+)", script))) == 1
    (spacing,) = re.findall(r"--spacing (\S+)", script)
    configurations = re.findall(r"(?:-c|nnUNetv2_train 751) (\S+)", script)
    assert len(configurations) == 3 and set(configurations) == {f"2d_{float(spacing):g}mm"}


@pytest.mark.slow
@pytest.mark.nnunet
def test_the_page_from_the_download_to_the_ejection_fraction(tmp_path: Path) -> None:
    write_camus(tmp_path / "CAMUS_public", 10, 0, spacing_mm=2.0, half_sequence=False)
    printed = run_commands(PAGE, TOY, tmp_path)
    assert "an epoch (2 training steps of" in printed
    with (tmp_path / "scores" / "patients.csv").open(newline="") as file:
        patients = list(csv.DictReader(file))
    assert len(patients) == 2 and all(row["planes"] == "single-plane 4CH" for row in patients)
    assert all(20 < float(row["reference_ef_percent"]) < 90 for row in patients)
