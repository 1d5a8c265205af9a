"""Names and colours."""

from __future__ import annotations

from nnunet_echo.drawing.style import short_names, structure_colours


def test_short_names() -> None:
    assert short_names(["nnUNetTrainerViL_5epochs", "nnUNetTrainerLKMUNet_5epochs"]) == ["ViL", "LKMUNet"]
    assert short_names(["nnUNetTrainer", "nnUNetTrainerViL2"]) == ["nnUNetTrainer", "ViL2"]
    assert short_names(["nnUNetTrainerViL_5epochs"]) == ["ViL_5epochs"]
    assert short_names(["nnUNetTrainer_5epochs", "nnUNetTrainerViL_5epochs"]) == ["5epochs", "ViL_5epochs"]


def test_colours_of_structures_differ() -> None:
    """But MYO has that of LV_EPI, the outline around it; more structures than colours begin again."""
    colours = structure_colours(["LV", "MYO", "LV_EPI", "LA", *"ABCDE"])
    assert colours["MYO"] == colours["LV_EPI"]
    assert len({colours[name] for name in ("LV", "MYO", "LA", *"ABCD")}) == 7
    assert colours["E"] == colours["A"]
