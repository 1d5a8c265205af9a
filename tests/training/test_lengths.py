"""The grammar of trainers' names: lengths and recipes."""

import warnings

import pytest
from toy_training import Toy, make

from nnunet_echo.training.recipes import RECIPES
from nnunet_echo.training.trainer import EchoTrainer, other_lengths

pytest_plugins = ("toy_training",)


def test_other_lengths():
    find = other_lengths(Toy)
    trainer = find("Toy_7epochs")
    assert (trainer.__name__, trainer.num_epochs, trainer.num_iterations_per_epoch) == ("Toy_7epochs", 7, 4)
    trainer = find("Toy_120epochs_50iterations")
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (120, 50)
    assert issubclass(trainer, Toy) and trainer.__module__ == Toy.__module__


@pytest.mark.parametrize(
    "name",
    ["Toy_0epochs", "Toy_05epochs", "Toy_-5epochs", "Toy_epochs", "Toy_5epoch", "Toy_5epochs\n", "Toy", "Toy2_5epochs"]
    + ["Toy_5iterations", "Toy_5epochs_0iterations", "Toy_5epochs_5iterations_more"]
    + ["Toy_vil3", "Toy_Vil30", "Toy_vil30_", "Toy_vil30_samus", "Toy_5epochs_vil30", "Toy_vil30_5iterations", "Toy_"],
)
def test_names_that_are_neither_are_refused(name):
    begins_alike = name.startswith("Toy_")
    with warnings.catch_warnings(record=True) as told, pytest.raises(AttributeError, match="has no attribute"):
        warnings.simplefilter("always")
        other_lengths(Toy)(name)
    assert len(told) == begins_alike


def test_lengths_reach_nnunet_and_the_folder_of_results(toy_dataset):
    trainer = make(other_lengths(Toy)("Toy_7epochs_9iterations"))
    lengths = trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch
    assert lengths == (7, 9, 1)
    assert "/Toy_7epochs_9iterations__nnUNetPlans__2d/fold_0" in trainer.output_folder
    assert make(EchoTrainer).num_val_iterations_per_epoch == 50


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("length", "epochs"), [("", None), ("_7epochs", 7), ("_7epochs_9iterations", 7)])
def test_recipes_come_before_lengths(toy_dataset, recipe, length, epochs):
    trainer = make(other_lengths(Toy)(f"Toy_{recipe}{length}"))
    assert trainer.num_epochs == (epochs or RECIPES[recipe].epochs)
    assert f"/Toy_{recipe}{length}__nnUNetPlans__2d/fold_0" in trainer.output_folder
    assert isinstance(trainer, Toy) and type(trainer).__module__ == Toy.__module__
    trainer.initialize()
    assert trainer.num_iterations_per_epoch == (9 if "iterations" in length else 4)  # 8 training cases, batch 2
    assert trainer.initial_lr == RECIPES[recipe].initial_lr


def test_the_warning_says_what_may_follow_and_which_recipes_there_are():
    with pytest.warns(UserWarning) as told, pytest.raises(AttributeError):
        other_lengths(Toy)("Toy_vil3_5epochs")
    (text,) = (str(warning.message) for warning in told)
    assert text.startswith("Toy_vil3_5epochs: Toy has no such form. ") and "_<N>epochs_<M>iterations" in text
    assert text.endswith(f"Recipes: {', '.join(RECIPES)}.")


@pytest.mark.parametrize("name", ["TOY", "toy_5epochs", "Toy5epochs"])
def test_a_name_of_other_case_or_without_its_underscore_is_warned_of(name: str):
    message = f"{name}: Toy has no such form. After its name, spelt so, may follow"
    with pytest.warns(UserWarning, match=message), pytest.raises(AttributeError):
        other_lengths(Toy)(name)


@pytest.mark.parametrize("name", ["Toy2", "Toy2_5epochs", "Toys", "AToy_5epochs"])
def test_a_name_of_another_trainer_is_no_warning(name: str, recwarn: pytest.WarningsRecorder):
    with pytest.raises(AttributeError):
        other_lengths(Toy)(name)
    assert not list(recwarn)


def test_a_row_of_ones_own():
    find = other_lengths(Toy, {"mine": RECIPES["samus"]})
    assert find("Toy_mine_3epochs").recipe is RECIPES["samus"]
    with pytest.warns(UserWarning, match="Recipes: mine."), pytest.raises(AttributeError):
        find("Toy_samus")


def test_a_recipe_does_not_leak_into_the_trainer_it_is_for():
    recipe = other_lengths(Toy)("Toy_samus")
    assert (Toy.num_epochs, Toy.initial_lr, Toy.max_grad_norm) == (3, 0.01, 12) and not hasattr(Toy, "recipe")
    assert recipe.num_epochs == 200 and recipe.__mro__.index(Toy) == 2


@pytest.mark.parametrize("name", ["Mine", "my_recipe", "3epochs", "", "mine\n"])
def test_a_row_that_no_name_can_reach_is_an_error(name):
    with pytest.raises(ValueError, match="lower-case letters and digits"):
        other_lengths(Toy, {name: RECIPES["samus"]})
