"""What belongs to no package: version, changelog, workflows. Documentation has tests of its own, in tests/docs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import nnunet_echo

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yml")))


SOURCES = ("nnunet_echo", "dataset_conversion", "trainers", "tests", "benchmarks")
LANGUAGES = {".py", ".sh", ".c", ".h", ".js", ".css", ".jinja"}
MOST_LINES = 300


def test_no_file_is_so_long_that_nobody_reads_it_whole() -> None:
    """Split a longer one by what its parts answer; what tests share goes to tests/support."""
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.suffix in LANGUAGES]
    assert {path.suffix for path in files} == LANGUAGES and len(files) > 200
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    too_long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert not too_long, too_long


def test_the_version_is_written_once() -> None:
    assert version("nnunet-echo") == nnunet_echo.__version__
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == nnunet_echo.__version__
    assert nnunet_echo.__version__ not in (ROOT / "pyproject.toml").read_text()


def test_the_version_is_read_without_dependencies() -> None:
    """setuptools reads it where nothing but setuptools is installed: -S leaves site-packages out."""
    code = "import nnunet_echo; print(nnunet_echo.__version__)"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == nnunet_echo.__version__, done.stderr


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    headings = re.findall(r"^(##+) (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    releases = [text for level, text in headings if level == "##"]
    assert releases[0] == "Unreleased"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", text) for text in releases[1:])
    kinds = {text for level, text in headings if level == "###"}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize(
    "schema, files", [("github-workflows", WORKFLOWS), ("citation-file-format", [str(ROOT / "CITATION.cff")])]
)
def test_files_have_the_form_that_their_readers_expect(schema: str, files: list[str]) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing_in_the_workflows() -> None:
    zizmor = shutil.which("zizmor", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if zizmor is None:
        pytest.skip("zizmor, which checks workflows, is not here")
    command = [zizmor, "--offline", "--no-progress", str(ROOT / ".github")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_test_the_python_versions_that_are_promised() -> None:
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    tested = re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", text)[1])
    assert tested == ["3.10", "3.11", "3.12", "3.13"]
    project = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={tested[0]}"' in project
    assert re.findall(r"cp3(\d+)-", re.search(r'^build = "(.*)"', project, re.M)[1]) == [x[2:] for x in tested]
