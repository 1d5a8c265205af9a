"""Which network a trainer's name stands for, read from the trainer's file without running it.

Importing nnU-Net's trainer takes seconds and hundreds of modules (matplotlib, scikit-learn), and importing anybody's
trainer runs code. Most trainers say what the network is in a line or not at all: ours in `network_path`, nnU-Net's by
leaving it to the plan. That is what is read here; a trainer that computes it is named in an error, with the ways out.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nnunet_echo._startup import TRAINERS_VARIABLE, trainers_folder

_BUILDER = "build_network_architecture"
_STOCK = "nnUNetTrainer"
_OURS = "nnunet_echo.training."


@dataclass(frozen=True)
class TrainerNetwork:
    """`path`: a name of `networks.NETWORKS` or "module:Class"; None: the network that nnU-Net's plan names."""

    path: str | None
    options: dict[str, Any] = field(default_factory=dict)


def network_of_trainer(trainer: str) -> TrainerNetwork:
    """The network of nnU-Net's trainer of that name: stock, of this package (any recipe and length) or your own.

    Trainers are looked for where nnU-Net does, first in nnU-Net, then in the folders of nnUNet_extTrainer. Raises
    ValueError for one that is in neither, and for one that builds its network in a way that only running it tells.

    >>> network_of_trainer("nnUNetTrainerUMambaBot_20epochs")
    TrainerNetwork(path='umamba_bot', options={})
    >>> network_of_trainer("nnUNetTrainer_5epochs").path  # as the plan says
    """
    if not trainer.isidentifier():
        raise ValueError(f"trainer_name={trainer!r}: must be the name of a Python class. The checkpoint is damaged.")
    for file in _files_of(nnunet_trainers()):
        if found := _class_in(file, trainer):
            return _follow(found, trainer)
    for folder in external_folders():
        for file in _files_of(folder):
            for name in _shorter(trainer):
                if found := _class_in(file, name, any_length=name != trainer):
                    return _follow(found, trainer)
    raise ValueError(
        f"trainer {trainer}: is neither in nnU-Net nor in a folder of {TRAINERS_VARIABLE} "
        f"({os.environ.get(TRAINERS_VARIABLE, 'not set')}). Set the variable to the folder that holds its file."
    )


def nnunet_trainers() -> Path:
    """The folder of nnU-Net's own trainers, without importing it."""
    spec = find_spec("nnunetv2")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("nnunetv2 is not installed in this Python. Install it: pip install nnunetv2.")
    return Path(spec.submodule_search_locations[0], "training", "nnUNetTrainer")


def external_folders() -> list[Path]:
    """The folders of nnUNet_extTrainer, this package's last."""
    names = [name for name in os.environ.get(TRAINERS_VARIABLE, "").split(os.pathsep) if name.strip()]
    ours = trainers_folder()
    return [Path(name) for name in dict.fromkeys([*names, *([ours] if ours else [])])]


@dataclass(frozen=True)
class _Class:
    file: Path
    tree: ast.Module
    node: ast.ClassDef


def _files_of(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.py"))


def _class_in(file: Path, name: str, any_length: bool = False) -> _Class | None:
    """The class in the file; with `any_length` only where the file answers for other forms of the name, too."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not re.search(rf"^class {name}\b", text, re.MULTILINE) or (any_length and "__getattr__" not in text):
        return None
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{file}: line {error.lineno} is not Python. Mend the trainer's file.") from error
    return next((_Class(file, tree, n) for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)


def _shorter(name: str) -> Iterator[str]:
    """The name, and what is left of it without each of its endings: recipe and length."""
    while name:
        yield name
        name = name.rpartition("_")[0]


def _follow(found: _Class, trainer: str) -> TrainerNetwork:
    """Through the bases of a class, until one says what the network is."""
    path, options = None, None
    for _ in range(20):  # no chain is longer; a circle is
        attributes = _attributes(found.node)
        if _BUILDER in attributes and found.node.name != _STOCK:
            break
        path = path if path is not None else _literal(attributes, "network_path", found, str)
        options = options if options is not None else _literal(attributes, "network_options", found, dict)
        if found.node.name == _STOCK:
            return TrainerNetwork(None)
        base = found.node.bases[0] if len(found.node.bases) == 1 else None
        name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if _imported_from(found.tree, name).startswith(_OURS):
            if path is None:
                break
            return TrainerNetwork(path, options or {})
        following = _class_named(name, found)
        if following is None:
            break
        found = following
    raise ValueError(
        f"trainer {trainer}: {found.file} builds its network in its own way, which is not run to predict. Derive it "
        "from nnunet_echo's EchoTrainer with network_path = 'module:Class', allow its import with --import-trainer "
        "(import_trainer=True), or use nnUNetv2_predict."
    )


def _class_named(name: str, found: _Class) -> _Class | None:
    if not name:
        return None
    here = _class_in(found.file, name)
    if here is not None and here.node is not found.node:
        return here
    files = (file for folder in (nnunet_trainers(), *external_folders()) for file in _files_of(folder))
    return next((other for file in files if file != found.file and (other := _class_in(file, name))), None)


def _imported_from(tree: ast.Module, name: str) -> str:
    """The module that the file has a name from, with a dot behind it; "" for none."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return f"{node.module}."
    return ""


def _attributes(node: ast.ClassDef) -> dict[str, ast.AST]:
    """What the body of a class assigns or defines."""
    found: dict[str, ast.AST] = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            found[item.name] = item
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            found[item.target.id] = item.value
        elif isinstance(item, ast.Assign):
            for target in item.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = item.value
                elif isinstance(target, ast.Tuple) and isinstance(item.value, ast.Tuple):
                    found |= {
                        name.id: value
                        for name, value in zip(target.elts, item.value.elts, strict=False)
                        if isinstance(name, ast.Name)
                    }
    return found


def _literal(attributes: dict[str, ast.AST], name: str, found: _Class, kind: type) -> Any:
    if name not in attributes:
        return None
    try:
        value = ast.literal_eval(attributes[name])
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ValueError(
            f"{found.file}: {name} of {found.node.name} must be written out as a {kind.__name__} to be read without "
            "running the file. Write it so, or allow the import with --import-trainer (import_trainer=True)."
        )
    return value
