"""Every example in a docstring does what it shows, and everything public has one.

Public is what readers are told to use: the contents page `nnunet_echo`, the contents of each room (`__all__` of its
`__init__`, or what that defines), all that docs/reference/api.md shows and that code in the documentation imports, the
building blocks of networks (the modules of ops and layers, without the scan's backends), and what the plug-ins in
trainers and dataset_conversion import, as a further one would.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import nnunet_echo
from nnunet_echo import dataset_conversion, layers, ops
from nnunet_echo.leaderboard import board

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLUG_INS = [path for folder in ("trainers", "dataset_conversion") for path in sorted((ROOT / folder).rglob("*.py"))]
# They need a download, predictions and a study, which tests/test_api.py has for them.
ELSEWHERE = {
    "nnunet_echo.dataset_conversion.convert",
    "nnunet_echo.evaluation.evaluate.evaluate",
    "nnunet_echo.leaderboard.board.leaderboard",
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> Iterator[str]:
    """All of the package but the trainers; those in C or for Triton alone have no examples."""
    packages = [nnunet_echo, dataset_conversion]  # in a checkout the second lies outside the first
    for module in (found for top in packages for found in pkgutil.walk_packages(top.__path__, f"{top.__name__}.")):
        if not re.search(r"\.trainers\b|\._(cpu_scan|triton_kernels|triton_tiles)$", module.name):
            yield module.name


MODULES = sorted({"nnunet_echo", dataset_conversion.__name__, *modules()})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which nnU-Net's folders are to be."""
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, name)
    monkeypatch.delenv("NNUNET_ECHO_SCAN", raising=False)
    return tmp_path


def failures(module: ModuleType, place: Path) -> str:
    """What the examples of a module show that is not so; each has a folder of its own."""
    told: list[str] = []
    for number, examples in enumerate(doctest.DocTestFinder().find(module, module.__name__)):
        if examples.name not in ELSEWHERE:
            folder = place / str(number)
            folder.mkdir(exist_ok=True)
            os.chdir(folder)
            doctest.DocTestRunner(optionflags=FLAGS).run(examples, out=told.append)
    return "".join(told)


@pytest.mark.parametrize("name", MODULES)
def test_examples_show_what_they_do(name: str, place: Path, capfd: pytest.CaptureFixture) -> None:
    told = failures(importlib.import_module(name), place)
    assert not told, told
    assert capfd.readouterr().err == ""


def test_a_wrong_example_is_told(place: Path) -> None:
    module = ModuleType("module", ">>> 1 + 1\n3\n")
    assert "Expected:\n    3\nGot:\n    2\n" in failures(module, place)
    module.__doc__ = ">>> 1 + 1\n2\n"
    assert not failures(module, place)


def imports(code: str) -> Iterator[object]:
    """What code imports by name from the package, plug-ins left out, and uses of its contents page."""
    for node in ast.walk(ast.parse(code)):
        module = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and re.match(r"nnunet_echo\b(?!\.dataset_conversion\.)", module):
            yield from (getattr(importlib.import_module(module), alias.name) for alias in node.names)


def code_of(page: Path) -> Iterator[str]:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        try:
            yield str(ast.unparse(ast.parse(block)))
        except SyntaxError:  # a row of a table
            continue


def defined(module: ModuleType) -> list[object]:
    return [
        value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


def contents(module: ModuleType) -> list[object]:
    names = getattr(module, "__all__", None)
    return defined(module) if names is None else [getattr(module, name) for name in names]


def rooms() -> Iterator[ModuleType]:
    yield nnunet_echo
    for module in pkgutil.iter_modules(nnunet_echo.__path__, "nnunet_echo."):
        if module.ispkg and not module.name.endswith((".cli", ".trainers")):
            yield importlib.import_module(module.name)
    yield dataset_conversion


def public() -> dict[str, object]:
    found = [value for room in rooms() for value in contents(room)]
    found.append(board.leaderboard)  # on the contents page as a module that can be called
    shown = re.findall(r"^::: (\S+)\.(\w+)$", (ROOT / "docs" / "reference" / "api.md").read_text(), re.MULTILINE)
    found += [getattr(importlib.import_module(module), name) for module, name in shown]
    found += [value for page in PAGES for code in code_of(page) for value in imports(code)]
    found += [value for path in PLUG_INS for value in imports(path.read_text())]
    for room in (ops, layers):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            found += defined(importlib.import_module(module.name))
    kinds = [value for value in found if inspect.isfunction(value) or inspect.isclass(value)]
    kinds = [value for value in kinds if value.__module__.startswith("nnunet_echo")]  # not what is only handed on
    return {f"{value.__module__}.{value.__qualname__}": value for value in kinds}


PUBLIC = public()


def test_what_is_public_is_found() -> None:
    for name in (
        "evaluation.left_ventricle.volume.lv_shape",  # the contents page
        "networks.table.Network",  # a room's contents
        "dataset_conversion.readers",  # that of the room which is elsewhere in a checkout
        "evaluation.agreement.agreement",  # api.md
        "networks.plan.UNetShape",  # a how-to
        "layers.windows.to_tokens",  # a building block
        "data.tables.whole_number",  # a plug-in
    ):
        assert f"nnunet_echo.{name}" in PUBLIC
    assert set(PUBLIC) >= ELSEWHERE and "nnunet_echo.dataset_conversion.camus" in MODULES


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_what_is_public_has_an_example(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(PUBLIC[name].__doc__ or "")
    assert any(example.want for example in examples), f"{name} has no example (>>>) that shows something"
    assert PUBLIC[name].__module__ in MODULES  # where it is run
