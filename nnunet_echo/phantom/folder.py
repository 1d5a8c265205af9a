"""The folder of a phantom: marked as ours before anything is written, refused where it holds anything else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def check_numbers(seed: int, **counts: int) -> None:
    """Raise ValueError unless the seed is 0 or more and each count, named as the caller's argument, 1 or more.

    >>> check_numbers(seed=0, patients=4)
    >>> check_numbers(seed=0, patients=0)
    Traceback (most recent call last):
        ...
    ValueError: patients=0: must be 1 or more.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: must be 1 or more.")
    if seed < 0:
        raise ValueError(f"seed={seed}: must be 0 or more.")


def claim(out: Path, mark: str, recipe: str) -> None:
    r"""Mark `out` as a phantom of this `recipe`, in its file `mark`. The recipe begins with the layout, as the command.

    Raises FileExistsError for a folder that holds anything else.

    >>> claim(Path("phantom"), "README.txt", "camus --patients 4")
    >>> Path("phantom/README.txt").read_text()
    'Synthetic hearts, not of real patients, drawn by nnunet-echo phantom camus --patients 4\n'
    >>> claim(Path("phantom"), "README.txt", "camus --patients 5")
    Traceback (most recent call last):
        ...
    FileExistsError: phantom: is not empty and holds no phantom made with the same arguments (camus ...
    """
    path = out / mark
    text = f"Synthetic hearts, not of real patients, drawn by nnunet-echo phantom {recipe}"
    if path.is_file() and path.read_text(encoding="utf-8").strip() == text:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out}: is not empty and holds no phantom made with the same arguments ({recipe}). "
            "Choose another folder or delete this one."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, [text])


def write_text(path: Path, lines: Iterable[str]) -> None:
    r"""Write the lines, each ended by a line feed on every system.

    >>> write_text(Path("info.cfg"), ["ED: 1", "ES: 12"])
    >>> Path("info.cfg").read_text()
    'ED: 1\nES: 12\n'
    """
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
