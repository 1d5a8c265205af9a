"""The commands of a page of the documentation, and running them as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def commands(page: str) -> list[str]:
    """Of all its bash blocks; `page` is relative to docs."""
    blocks = re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def run_commands(page: str, toy: Mapping[str, str], place: Path, timeout: float = 900) -> str:
    """Run them all in `place` by one shell, with one process for everything; what they print.

    `toy` replaces words of the page by those of a toy size; each has to be there.
    """
    script = "\n".join(commands(page))
    for text, small in toy.items():
        assert text in script, text
        script = script.replace(text, small)
    startup = place / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text("import multiprocessing\nmultiprocessing.cpu_count = lambda: 1\n")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(startup),
        "nnUNet_def_n_proc": "1",
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=place,
        env=environment,
        text=True,
        capture_output=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
