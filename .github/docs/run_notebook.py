"""`python .github/docs/run_notebook.py docs/tutorial.ipynb`: run a notebook and store what its cells give, made tidy.

Needs nbclient and ipykernel (`pip install -e '.[test]'`). It runs in a new folder, which is deleted.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

# IPython goes on when a command fails.
CHECKED = """
def checked(command, system=get_ipython().system):
    system(command)
    if get_ipython().user_ns["_exit_code"]:
        raise RuntimeError(f"{command}: exit code {get_ipython().user_ns['_exit_code']}")


get_ipython().system = checked
"""
WARNING = re.compile(r"^\S+:\d+: \w*Warning: .*\n(?:  .*\n)?", re.MULTILINE)
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ", re.MULTILINE)  # of nnU-Net's log
SIDE = 800, 1600  # pixels of a picture, at most
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run it in `folder`, with the commands of this Python; what the cells give is put into it.

    Raises `nbclient.exceptions.CellExecutionError` when a cell or one of its commands fails.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    notebook.cells.insert(0, nbformat.v4.new_code_cell(CHECKED))
    client = NotebookClient(notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env=environment)
    notebook.cells.pop(0)


def tidy(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Progress bars at their end, no warnings, times, or paths of this machine."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        cell.metadata, cell.execution_count = {}, number
        texts = [output for output in cell.outputs if output.output_type == "stream"]
        text = tidy_text("".join(output.text for output in texts), folder)
        cell.outputs = [output for output in cell.outputs if output not in texts]
        for output in cell.outputs:
            output.metadata = {}
            if "execution_count" in output:
                output.execution_count = number
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
        if text:
            cell.outputs.insert(0, nbformat.v4.new_output("stream", name="stdout", text=text))


def tidy_text(text: str, folder: Path) -> str:
    """What a terminal shows in the end.

    >>> tidy_text("10%\\r20%\\r\\ndone: /tmp/x/a\\n", Path("/tmp/x"))
    '20%\\ndone: a\\n'
    """
    lines = COLOUR.sub("", text).replace("\r\n", "\n").split("\n")
    shown = "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines)
    return STAMP.sub("", WARNING.sub("", shown)).replace(f"{folder}/", "")


def smaller(png: str) -> str:
    """A PNG in base64, of at most `SIDE` pixels."""
    picture, file = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    picture.thumbnail(SIDE)
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    file = Path(sys.argv[1])
    content = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as place:
        run(content, Path(place))
        tidy(content, Path(place))
    nbformat.write(content, file)
