"""`nnunet-echo doctor`: what is installed, which scan backend each device gets, whether nnU-Net finds the trainers."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import nnunet_echo

PACKAGES = ("nnunet-echo", "nnunetv2", "torch", "triton", "mamba-ssm", "causal-conv1d", "SimpleITK")
NEEDED = ("nnunetv2", "torch", "SimpleITK")
AUTOLOAD_OFF = "TORCH_DEVICE_BACKEND_AUTOLOAD=0"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 when training would work, else 1 with what to do about each problem."""
    problems: list[str] = []
    _hook(problems)
    if _versions(problems):
        _scans(_devices())
        _trainers(problems)
    _folders(problems)
    print()
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("Training would not work yet." if problems else "Ready to train.")
    return 1 if problems else 0


def _hook(problems: list[str]) -> None:
    """What `import torch` will find when it calls our hook, in a Python that is started in this folder."""
    code = "import nnunet_echo as e; print(*getattr(e, '__path__', [e.__file__])); import nnunet_echo._startup"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    found = done.stdout.strip()
    here = os.path.dirname(nnunet_echo.__file__)
    if not done.returncode and found != here:
        print(f"nnunet-echo     this one is in {here}; a Python that starts here finds {found}")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        problems.append(
            f"a Python that starts in this folder finds another nnunet_echo, {found or 'which fails'} "
            f'({reason}), and every `import torch` fails there: "Failed to load the backend extension". Rename it, '
            f"or take it off PYTHONPATH. Until then {AUTOLOAD_OFF} lets torch be imported, without our trainers."
        )


def _versions(problems: list[str]) -> bool:
    """Print them, and whether each package can be imported; False where one that everything needs cannot."""
    print(f"python          {platform.python_version()} on {platform.system()} {platform.machine()}")
    usable = True
    for package in PACKAGES:
        module = package.replace("-", "_")
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
            if importlib.util.find_spec(module) is not None:
                found = "of unknown version"
        if found != "not installed" and (error := _import_error(module)) is not None:
            found += f", but its import fails ({error})"
            if package in NEEDED:
                usable = False
                problems.append(f"{package} is installed, but its import fails: {error}.{_way_out(error)}")
        elif found == "not installed" and package in NEEDED:
            usable = False
            problems.append(f"{package} is not installed. Install nnunet-echo again.")
        print(f"{package:<15} {found}")
    return usable


def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken build raises anything
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def _way_out(error: str) -> str:
    if "backend extension" not in error:
        return ""
    return (
        " PyTorch imports what packages register with it (entry points of torch.backends), and one of them is broken: "
        f"install that again or remove it. Until then {AUTOLOAD_OFF} turns all of them off, ours too."
    )


def _devices() -> list:
    import torch

    devices, cuda = [torch.device("cpu")], torch.version.cuda
    if torch.cuda.is_available():
        capability = "{}.{}".format(*torch.cuda.get_device_capability(0))
        memory_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = torch.cuda.get_device_name(0)
        print(
            f"CUDA            {cuda}; {torch.cuda.device_count()} GPU(s), the first: {name}, "
            f"compute capability {capability}, {memory_gib:.0f} GiB"
        )
        devices.append(torch.device("cuda", 0))
    else:
        print(f"CUDA            no GPU usable (PyTorch is built {f'for CUDA {cuda}' if cuda else 'without CUDA'})")
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    return devices


def _scans(devices: list) -> None:
    import torch

    from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE, BACKENDS, choose_backend

    for device in devices:
        try:
            print(f"\nscan on {device}: {choose_backend(device)}")
        except (RuntimeError, ValueError) as error:  # what the variable asks for cannot be had here
            print(f"\nscan on {device}: none. {error}")
        for name, backend in BACKENDS.items():
            print(f"  {name:<10} {backend.why_not(device, torch.float32) or 'can run'}")
    if os.environ.get(BACKEND_VARIABLE):
        print(f"  {BACKEND_VARIABLE}={os.environ[BACKEND_VARIABLE]} is set")


def _trainers(problems: list[str]) -> None:
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    from nnunet_echo._startup import TRAINERS_VARIABLE, trainers_folder
    from nnunet_echo.networks import NETWORKS

    folder = trainers_folder()
    if folder is None:
        problems.append("the trainers folder is missing from the installation. Install nnunet-echo again.")
        return
    print(f"\ntrainers in {folder}")
    titles = {name: (title, row) for row in NETWORKS.values() for name, title in row.trainers.items()}
    for name, (title, row) in titles.items():
        try:
            found = recursive_find_python_class(folder, name, None, cleanup_imports_from_base_folder=True)
        except Exception as error:  # any failure of one file hides every trainer from nnU-Net
            found = None
            problems.append(f"{name} cannot be imported ({type(error).__name__}: {error}).")
        forms = " and ".join(f"{n}D" for n in row.dims)
        title = "; it ".join(filter(None, [f"{title}, {forms}", row.why_not()]))
        print(f"  {name:<32} {'found' if found else 'NOT FOUND':<10} {title}")
    if folder not in os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep):
        problems.append(
            f"nnU-Net does not look into that folder. `import torch` should have added it to {TRAINERS_VARIABLE} "
            f"({AUTOLOAD_OFF} turns that off). Set it yourself: export {TRAINERS_VARIABLE}={folder}"
        )


def _folders(problems: list[str]) -> None:
    print("\nfolders of nnU-Net")
    for name in FOLDERS:
        path = os.environ.get(name)
        new = path and not os.path.exists(path)
        print(f"  {name:<20} {path or 'not set'}{' (does not exist yet)' if new else ''}")
        if not path:
            problems.append(
                f"{name} is not set. Set it (see setting_up_paths.md of nnU-Net): export {name}=/some/folder"
            )
        elif path.startswith("~"):
            problems.append(
                f"{name} is {path!r}, which neither nnU-Net nor Python expands: they would make a folder called '~'. "
                f"Set it without the quotes, or with $HOME: export {name}=$HOME/some/folder"
            )
        elif not path.strip() or not (new or os.path.isdir(path)):
            problems.append(f"{name} is {path!r}, which is not a folder. Name one: export {name}=/some/folder")
