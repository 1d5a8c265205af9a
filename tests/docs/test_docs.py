"""The documentation: it builds, its links lead somewhere, its commands parse, the messages it explains exist."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from notebooks import as_markdown

from nnunet_echo.cli.leaderboard import FILES
from nnunet_echo.cli.main import COMMANDS
from nnunet_echo.evaluation.evaluate import TABLES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]),
]
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """Of a notebook, what the docs build makes of it, without what its cells gave."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return as_markdown({"cells": [{**cell, "outputs": []} for cell in cells]})


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text_of(page))):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `nnunet-echo ...`, in blocks and in running text."""
    blocks = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    words = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    for line in [*blocks, *words]:
        # the end of another name, such as a folder's, is no command
        for found in re.findall(r"(?<![\w/.'-])nnunet-echo +[a-z-].*", line):
            arguments = shlex.split(found, comments=True)[1:]
            ends = [i for i, word in enumerate(arguments) if word in (">", "|", "&&", ";")]
            yield arguments[: min(ends, default=None)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture) -> None:
    for command, *arguments in commands(text_of(page)):
        if (command, *arguments[:2]) == ("convert", "hearts", "/path/to/hearts"):
            continue  # docs/how-to/dataset.md adds it
        if command == "--version":
            continue
        assert command in COMMANDS, command
        if not arguments or "..." in arguments or command in ("convert", "phantom") and len(arguments) == 1:
            continue  # it is spoken of, not shown
        parser = argparse.ArgumentParser(prog=command)
        importlib.import_module(f"nnunet_echo.cli.{command.replace('-', '_')}").add_arguments(parser)
        try:
            parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"nnunet-echo {command} {shlex.join(arguments)}: {capsys.readouterr().err}")


def test_commands_are_found_where_they_are_written() -> None:
    block = "```bash\nA=1 nnunet-echo check 7 \\\n  --raw y > z  # w\n```\n"
    text = f"Try `nnunet-echo\nerf -o x`, not `nnunet-echo-demo/`.\n\n{block}"
    assert list(commands(text)) == [["check", "7", "--raw", "y"], ["erf", "-o", "x"]]


def test_every_command_is_in_the_reference() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", (DOCS / "reference" / "cli.md").read_text(), re.MULTILINE)
    assert rows == list(COMMANDS)
    files = (DOCS / "reference" / "files.md").read_text()
    first = re.findall(r"^\| (`[^|]*) \|", files, re.MULTILINE)
    named = {word for cell in first for word in re.findall(r"`([a-z-]+)", cell)}
    assert set(COMMANDS) <= named
    assert all(f"`{name}`" in files for name in {*FILES, *(f"{table}.csv" for table in TABLES)})


def texts_of_the_package() -> str:
    """All strings of its modules, in one; what is filled in becomes three dots."""
    found = []
    for folder in ("nnunet_echo", "dataset_conversion"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


MESSAGES_OF_OTHERS = {  # where they stand, as the module and the words there
    "Failed to load the backend extension": ("torch", "Failed to load the backend extension: "),
    "Torch not compiled with CUDA enabled": ("torch.cuda", "Torch not compiled with CUDA enabled"),
    "Trainer '...' not found": ("nnunetv2.utilities.find_objects", "not found in nnunetv2.training.nnUNetTrainer."),
    "Could not find requested nnunet": ("nnunetv2.utilities.find_objects", "Could not find requested nnunet trainer"),
    "One or more background workers": (
        "batchgenerators.dataloading.nondet_multi_threaded_augmenter",
        "One or more background workers are no longer alive. Exiting.",
    ),
    "Requested configuration": ("nnunetv2.utilities.plans_handling.plans_handler", "not found in plans. "),
    "Could not find a dataset with": (
        "nnunetv2.utilities.dataset_name_id_conversion",
        "Could not find a dataset with the ID ",
    ),
}


def test_messages_of_other_packages_are_theirs() -> None:
    for module, words in MESSAGES_OF_OTHERS.values():
        assert words in Path(importlib.util.find_spec(module).origin).read_text(), (module, words)


def test_messages_in_the_faq_are_those_of_the_package() -> None:
    headings = re.findall(r"^### (.*)$", (DOCS / "faq.md").read_text(), re.MULTILINE)
    assert len(headings) >= 20
    texts = texts_of_the_package()
    quoted = [heading[1:-1] for heading in headings if heading.startswith('"')]
    assert len(quoted) >= 12
    of_others = {message for message in quoted if any(message.startswith(start) for start in MESSAGES_OF_OTHERS)}
    assert len(of_others) == len(MESSAGES_OF_OTHERS)
    for message in [message for message in quoted if message not in of_others]:
        for part in re.split(r"\.\.\.|[\[\]'()]|\b(?:cuda|cpu|torch\.float32|0\.05|10)\b", message):
            assert len(part.strip(" :;,.")) < 4 or part.strip(" :;,.") in texts, (message, part)


def test_the_picture_of_the_architecture_has_every_folder() -> None:
    picture = "".join(ElementTree.parse(DOCS / "pictures" / "architecture.svg").getroot().itertext())
    page = (DOCS / "architecture.md").read_text()
    folders = {path.parent.name for path in (ROOT / "nnunet_echo").glob("*/__init__.py")} | {"dataset_conversion"}
    for folder in folders:
        assert folder in picture
        assert f"| `{folder}` |" in page


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".github/docs/mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "api" / "index.html").read_text()
    assert "&gt;&gt;&gt;" in page
    assert "<blockquote>" not in page  # what Markdown makes of an example that is no code block
    home = (tmp_path / "site" / "index.html").read_text()
    assert 'href="tutorial/"' in home and ".ipynb" not in home
    assert "nnunet-echo convert camus" in (tmp_path / "site" / "tutorial" / "index.html").read_text()


def test_the_readme_stays_short_and_its_pictures_small() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert "pip install -e '.[test]' && pytest" in lines
    assert all(picture.stat().st_size < 150_000 for picture in (DOCS / "pictures").iterdir())


def test_the_readme_has_every_trainer() -> None:
    rows = re.findall(r"^\| `nnUNetTrainer.*? \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(nnUNetTrainer\w+)`", " ".join(rows))) == sorted(
        path.stem for path in (ROOT / "trainers").glob("nnUNetTrainer*.py")
    )
