"""Every message that the package raises is `subject: rule. Remedy.`: whole sentences, and the remedy one of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(file for room in ("nnunet_echo", "dataset_conversion") for file in (ROOT / room).rglob("*.py"))
REMEDY = re.compile(
    r"[;:] (add|build|choose|complete|convert|copy|correct|cut|delete|download|draw|export|give|install|keep|leave|let|"
    r"list|make|move|name|pad|pass|pip install|plan|predict|preprocess|put|remove|rename|report|resample|restore|run|"
    r"save|see|set|start|take|train|unpack|use|wait|write)\b"
)
NO_REMEDY = r": train, val or test|Install (it|them): pip install"
CHECK, NOTES = ("problem", "remark", "grade"), ("Note", "refuse", "warn")  # of `check`; of converters and warnings
# Raised to be caught in the same module, where they become part of a message; and what is not for users.
INNER = {"ArithmeticError", "AttributeError", "ClipError", "NotImplementedError", "SystemExit", "_Unsafe"}
INNER_FILES = {"pixels.py", "rle.py"}  # ValueErrors of decoders, which become the rule of a ClipError
INNER_TEXTS = {
    "format {} is not that of this version, {}",
    "{} was changed",
    "{} are not numbers",
    "{} x {} pixels",
    "it has no folds",
    "the converter gave nothing",
    "the pattern finds an empty patient",
    "the table has no row with this image",
}
# Their last part is a sentence, or several, that another place ends.
ENDED_ELSEWHERE = ("{error}", "{reason}", "{remedy}", "{hint}", "{text}", "{last}", ".message}", ".unusable}")


def messages(file: Path) -> Iterator[tuple[int, str]]:
    """The line, and the text with its values as `{value}`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name, given = ast.unparse(call.func).rpartition(".")[2], None
        if name in CHECK or (isinstance(node, ast.Raise) and name not in INNER):
            given = call.args[0]
        elif name in NOTES and call is node:
            given = next((arg for arg in call.args[::-1] if not isinstance(arg, ast.Name)), None)
        if given is not None and (text := written(given)) is not None and " " in text:
            yield node.lineno, text


def written(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{written(node.left) or '{}'}{written(node.right) or '{}'}"
    if isinstance(node, ast.IfExp):
        return written(node.body)
    return None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_messages_are_sentences_and_the_remedy_is_one_of_its_own(file: Path) -> None:
    for line, text in messages(file):
        bare = re.sub(r"\{[^{}]*\}", "{}", text)
        where = f"{file.relative_to(ROOT)}:{line}: {text}"
        if file.name not in INNER_FILES and bare not in INNER_TEXTS:
            assert text.endswith((".", "?", *ENDED_ELSEWHERE)), f"no full stop: {where}"
        assert not REMEDY.search(re.sub(NO_REMEDY, "", bare)), f"the remedy is no sentence: {where}"
        assert not re.search(r"(?<!\.)\.\.( |$)|\.;", bare), f"two stops: {where}"


def test_messages_are_found() -> None:
    assert sum(1 for file in FILES for _ in messages(file)) > 500
