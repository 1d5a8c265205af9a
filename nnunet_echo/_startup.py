"""Tell stock nnU-Net where the trainers are.

PyTorch calls `register_trainers` at the end of `import torch` (entry point group ``torch.backends``), which nnU-Net's
commands do before they look a trainer up. Standard library only, and nothing here may raise: an exception would break
every `import torch` of the environment. ``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` turns the hook off.
"""

from __future__ import annotations

import os

TRAINERS_VARIABLE = "nnUNet_extTrainer"


def trainers_folder() -> str | None:
    """The folder that holds our trainers: beside this file in an installed package, one level up in a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in (os.path.join(here, "trainers"), os.path.join(os.path.dirname(here), "trainers")):
        if os.path.isfile(os.path.join(folder, "nnUNetTrainerLKMUNet.py")):
            return folder
    return None


def register_trainers() -> None:
    """Append our trainers folder to ``nnUNet_extTrainer``, once, behind any folder that the user has set."""
    try:
        folder = trainers_folder()
        if folder is None:
            return
        folders = [entry for entry in os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep) if entry]
        if folder not in folders:
            os.environ[TRAINERS_VARIABLE] = os.pathsep.join([*folders, folder])
    except Exception:  # see the module's docstring: a failure here would break `import torch`
        return
