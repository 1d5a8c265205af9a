"""The names of trainers: ``nnUNetTrainer<Network>[_<recipe>][_<N>epochs[_<M>iterations]]``.

nnU-Net finds a trainer by its name alone and names the folder of results after it. So whatever is to differ between two
trainings has to be in the name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nnunet_echo.training.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from nnunet_echo.training.trainer import EchoTrainer

_RECIPE = r"[a-z][a-z0-9]*"
_LENGTH = r"(?P<epochs>[1-9][0-9]*)epochs(?:_(?P<iterations>[1-9][0-9]*)iterations)?"
_ENDING = re.compile(rf"(?:_(?P<recipe>{_RECIPE}))?(?:_{_LENGTH})?")


def other_lengths(
    trainer: type[EchoTrainer], recipes: Mapping[str, Recipe] = RECIPES
) -> Callable[[str], type[EchoTrainer]]:
    """The `__getattr__` (PEP 562) of a trainer's module: nnU-Net asks modules for a name, and so finds any form of it.

    ``<name>_<N>epochs`` trains N epochs, ``<name>_<N>epochs_<M>iterations`` of M iterations each; no leading zeros.
    ``<name>_<recipe>`` trains by a row of `recipes`, and may be followed by a length, which then replaces the recipe's.

    The function returned raises AttributeError for any other name. nnU-Net swallows it and says that it found none, so
    a name that begins with the trainer's, in whatever case, is a warning too, which says what may follow. Raises
    ValueError at once for a recipe whose name the grammar does not have.

    >>> from nnunet_echo.training.trainer import EchoTrainer
    >>> trainer = other_lengths(EchoTrainer)("EchoTrainer_vil30_5epochs_40iterations")
    >>> trainer.initial_lr, trainer.num_epochs, trainer.num_iterations_per_epoch
    (0.0001, 5, 40)
    """
    for recipe in recipes:
        if not re.fullmatch(_RECIPE, recipe):
            raise ValueError(
                f"recipes={recipe!r}: a name is of lower-case letters and digits, a letter first. Rename it."
            )

    def module_getattr(name: str) -> type[EchoTrainer]:
        begins_alike = name != trainer.__name__ and re.match(rf"{trainer.__name__}(_|\d+epochs|$)", name, re.IGNORECASE)
        exact = name.startswith(f"{trainer.__name__}_")
        match = _ENDING.fullmatch(name.removeprefix(trainer.__name__)) if exact else None
        if match is None or (match["recipe"] and match["recipe"] not in recipes):
            if begins_alike:
                warnings.warn(
                    f"{name}: {trainer.__name__} has no such form. After its name, spelt so, may follow _<recipe>, "
                    f"then _<N>epochs or _<N>epochs_<M>iterations. Recipes: {', '.join(recipes)}.",
                    stacklevel=2,
                )
            raise AttributeError(f"module {trainer.__module__!r} has no attribute {name!r}")
        attributes: dict[str, Any] = {"__module__": trainer.__module__}
        bases: tuple[type, ...] = (trainer,)
        if match["recipe"]:
            from nnunet_echo.training.recipe_trainer import (
                RecipeTrainer,
            )  # which is an EchoTrainer, and so imports this

            bases = (RecipeTrainer, trainer)
            attributes.update(RecipeTrainer.attributes_of(match["recipe"], recipes[match["recipe"]]))
        if match["epochs"]:
            attributes["num_epochs"] = int(match["epochs"])
        if match["iterations"]:
            attributes.update(num_iterations_per_epoch=int(match["iterations"]), passes_over_the_data=False)
        return type(name, bases, attributes)  # nnU-Net names the folder of results after the class

    return module_getattr
