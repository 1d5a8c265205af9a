"""Trainers of networks that take minutes at their size, with small ones, in a folder of the user's own.

It asserts nothing: PYTEST_DONT_REWRITE.
"""

from nnunet_echo.networks import NETWORKS

SOURCE = """
from nnunet_echo.trainers.nnUNetTrainer{name} import nnUNetTrainer{name}


class nnUNetTrainerSmall{name}(nnUNetTrainer{name}):
    network_options = {options!r}
    num_epochs, num_iterations_per_epoch = 1, 2
"""


def small_trainer(place, network):
    """Written where nnU-Net looks in this workplace; returns its name."""
    name = NETWORKS[network].trainer.removeprefix("nnUNetTrainer")
    folder = place.folder / "own"
    folder.mkdir(exist_ok=True)
    source = SOURCE.format(name=name, options=dict(NETWORKS[network].toy))
    (folder / f"nnUNetTrainerSmall{name}.py").write_text(source)
    place.environment["nnUNet_extTrainer"] = str(folder)
    return f"nnUNetTrainerSmall{name}"
