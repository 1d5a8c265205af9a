"""docs/reference/recipes.md has the rows of `RECIPES`; the code of docs/how-to/trainer.md works as it stands there."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nnunet_echo.training import augmentation, losses, optimizers, schedules
from nnunet_echo.training.losses import SigmoidLoss, SoftmaxLoss
from nnunet_echo.training.recipes import RECIPES

DOCS = Path(__file__).resolve().parents[2] / "docs"
LOSSES = {
    "0.8 Dice + 0.2 BCE": SigmoidLoss(),
    "the same for each class against the rest": SigmoidLoss(),
    "0.8 Dice + 0.2 CE": SoftmaxLoss(0.8, 0.2, background=False),
    "BceDice": SigmoidLoss(1.0, 1.0, positive_weight=1.0, smooth=1.0, squares=False, per_image=True),
    "CeDice": SoftmaxLoss(1.0, 1.0),
}


def test_the_table_is_that_of_the_code() -> None:
    page = (DOCS / "reference" / "recipes.md").read_text()
    table = page[page.index("| recipe | optimiser") : page.index("`vmunet300` is VM-UNet's")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    assert [row[0].strip("`") for row in rows] == list(RECIPES)
    for name, optimizer, rate, decay, epochs, batch, one, several, changed in rows:
        recipe = RECIPES[name.strip("`")]
        assert optimizer == recipe.optimizer.__name__
        initial_lr, title = rate.split(", ", 1)
        assert (float(initial_lr), title) == (recipe.initial_lr, recipe.schedule.title)
        assert (float(decay), int(epochs)) == (recipe.weight_decay, recipe.epochs)
        assert batch == str(recipe.batch_size or "not stated")
        assert (LOSSES[one], LOSSES[several]) == (recipe.one_class, recipe.several_classes)
        assert (changed == "SAMUS") == (recipe.augmentation == augmentation.Augmentation())
        assert (changed == "nnU-Net") == (recipe.augmentation is None)


LOOK_UP = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
trainer = find("nnUNetTrainerViLLonger_longer_3epochs")
rates = [trainer.recipe.schedule.rate(trainer.initial_lr, epoch, 100) for epoch in (0, 50, 100)]
assert (trainer.num_epochs, trainer.recipe.epochs, trainer.recipe.source) == (3, 100, "our laboratory")
assert [round(rate, 8) for rate in rates] == [1e-4, 5.05e-5, 1e-6]
assert find("nnUNetTrainerViLLonger_vil30").num_epochs == 30 and find("nnUNetTrainerViL_vil30").num_epochs == 30
"""


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_found_by_nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(
        r"```python\n# nnUNetTrainerViLLonger.py\n(.*?)```", (DOCS / "how-to" / "trainer.md").read_text(), re.S
    )
    (tmp_path / "nnUNetTrainerViLLonger.py").write_text(code)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", LOOK_UP], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [augmentation, losses, optimizers, schedules], ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
