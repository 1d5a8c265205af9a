"""For the docs build: what a docstring writes for readers of code becomes Markdown.

Examples (``>>>``) become code blocks, and ``::`` before an indented block becomes the colon that it is printed as.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
LITERAL = re.compile(r"::(?=\n\n {4})")


def as_markdown(docstring: str) -> str:
    """A docstring with its examples and literal blocks in Markdown's words.

    >>> as_markdown("It adds::\\n\\n    a + b")
    'It adds:\\n\\n    a + b'
    """
    return LITERAL.sub(":", EXAMPLE.sub(lambda found: f"```python\n{found[0]}\n```", docstring))


class PlainDocstrings(Extension):
    """Called by griffe for every module, class, function and attribute that it reads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
