"""Structures and their values as they are typed: LV=1 MYO=2, or by colour LV=#ff0000 MYO=#00ff00.

nnU-Net numbers labels 1, 2, 3, ...: `numbered` gives each structure the number that is written. Values keep their order
(1 2 3 stay what they are, 85 170 255 become 1 2 3), colours are numbered as they are named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

BACKGROUND = "background"
_PAIR = re.compile(r"(?P<name>[A-Za-z][\w-]*)=(?P<value>\d{1,5}|#[0-9a-fA-F]{6})", re.ASCII)


@dataclass(frozen=True)
class Labels:
    """Structure -> its value in the masks; with `colours` each value is 0xRRGGBB. The background is 0 if not named.

    >>> Labels({"LV": 85, "MYO": 170}).numbered()
    {'background': 0, 'LV': 1, 'MYO': 2}
    >>> Labels({"LV": 0xFF0000}, colours=True).text(0xFF0000)
    '#ff0000'
    """

    values: dict[str, int] = field(default_factory=dict)
    background: int = 0
    colours: bool = False

    def numbered(self) -> dict[str, int]:
        """Structure -> its number in nnU-Net's dataset.json, the background included."""
        names = list(self.values) if self.colours else sorted(self.values, key=self.values.__getitem__)
        return {BACKGROUND: 0} | {name: names.index(name) + 1 for name in self.values}

    def text(self, value: int) -> str:
        """A value as it is typed."""
        return f"#{value:06x}" if self.colours else str(value)


def read_labels(texts: Sequence[str], option: str = "--labels") -> Labels:
    """The structures in texts such as LV=1, or in one text with spaces or commas between.

    Raises `ValueError`, naming the `option`, for anything but NAME=VALUE, for a name or value that occurs twice, for a
    mixture of values and colours, and where there is no structure.

    >>> read_labels(["LV=1", "MYO=2"]).values
    {'LV': 1, 'MYO': 2}
    >>> read_labels(["LV=85,MYO=170"]).numbered()
    {'background': 0, 'LV': 1, 'MYO': 2}
    """
    values: dict[str, int] = {}
    kinds = set()
    for text in filter(None, re.split(r"[\s,]+", " ".join(texts))):
        match = _PAIR.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{option} {text}: it must be NAME=VALUE, such as LV=1, or NAME=#RRGGBB, such as "
                "LV=#ff0000 (in quotes), with a name of letters, digits, _ and -."
            )
        name, value = match["name"], match["value"]
        if name.lower() == BACKGROUND:
            name = BACKGROUND
        if name.lower() == "ignore":
            raise ValueError(f"{option} {text}: partly labelled masks are not read. Leave such images out.")
        number = int(value[1:], 16) if value[0] == "#" else int(value)
        if name in values or number in values.values():
            twice = name if name in values else value
            raise ValueError(f"{option} {text}: {twice} is there twice; each structure has one value of its own.")
        values[name] = number
        kinds.add(value[0] == "#")
    if len(kinds) > 1:
        raise ValueError(f"{option}: values and colours side by side. Give either NAME=VALUE or NAME=#RRGGBB for all.")
    background = values.pop(BACKGROUND, 0)
    if not values:
        raise ValueError(f"{option} is missing. Name the structures of the masks, such as {option} LV=1 MYO=2 LA=3.")
    if background in values.values():
        name = next(name for name in values if values[name] == background)
        raise ValueError(
            f"{option} {name}={'#000000' if kinds == {True} else 0}: that is the background's. Give it "
            "another with background=VALUE."
        )
    return Labels(values, background, kinds == {True})
