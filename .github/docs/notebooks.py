"""For the docs build: notebooks become pages. MkDocs knows Markdown alone; a plugin would bring all of Jupyter along.

MkDocs calls the two functions whose names begin with ``on_``; see ``hooks`` in mkdocs.yml.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LINK = re.compile(r"(\]\((?!\w+:)[^)\s#]*)\.ipynb(?=[)#])")
STYLE = re.compile(r"<style.*?</style>", re.DOTALL)  # of pandas' tables


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """A page for each notebook; the notebook itself stays beside it, for download."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            page = as_markdown(json.loads(Path(file.abs_src_path).read_text(encoding="utf-8")))
            files.append(File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to a notebook lead to its page."""
    return LINK.sub(r"\1.md", markdown)


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook (its JSON) with what its cells gave, in Markdown.

    >>> as_markdown({"cells": [{"cell_type": "code", "source": ["1 + 1"], "outputs": []}]})
    '```python\\n1 + 1\\n```\\n'
    """
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += filter(None, (_shown(output) for output in cell.get("outputs", ())))
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![what the cell draws](data:image/png;base64,{''.join(''.join(data['image/png']).split())})"
    if "text/html" in data:
        return STYLE.sub("", "".join(data["text/html"]))
    text = "".join(output.get("text") or data.get("text/plain", ())).rstrip("\n")
    return f"```text\n{text}\n```" if text else ""
