"""What a conversion did and what it left out: the report as an object, as JSON, as text and as a short summary."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NOT_TAKEN = "not taken"  # the kind of notes on what looks like a case only by its name


@dataclass(frozen=True, order=True)
class Note:
    """One thing the user should know: its kind (the same few words for all of its kind), whom it is about, the text.

    >>> Note("cfg field missing", "patient0007", "patient0007: no usable EF in Info_4CH.cfg; left empty").kind
    'cfg field missing'
    """

    kind: str
    subject: str
    message: str


@dataclass(frozen=True)
class Report:
    """The result of a conversion.

    `refused` are source cases that exist and are not in the dataset, each with its reason; `warnings` concern cases
    that are in it, or parts that the source does not have. `unusable` says why no dataset.json was written, if so.

    >>> lost = Note("file missing", "CAMUS_patient0007_4CH_ED", "its mask is not there")
    >>> report = Report(Path("Dataset751_CAMUS"), "camus", {}, 39, 0, 10, 5, refused=(lost,), warnings=())
    >>> report.exit_code
    1
    >>> print(report.as_text().splitlines()[0])
    Dataset751_CAMUS: 39 of 40 source cases converted, 10 patients, 39 training and 0 test cases, 5 fold(s)
    """

    folder: Path
    converter: str
    options: dict[str, Any]
    training_cases: int
    test_cases: int
    patients: int
    folds: int
    refused: tuple[Note, ...]
    warnings: tuple[Note, ...]
    unusable: str = ""

    @property
    def exit_code(self) -> int:
        """0: every source case that exists was converted. 1: one was refused. 2: no dataset came out."""
        return 2 if self.unusable else 1 if self.refused else 0

    def as_json(self) -> dict[str, Any]:
        """Everything but the machine's own paths, so that the same source gives the same bytes anywhere."""
        content = asdict(self)
        del content["folder"]
        return content

    def as_text(self) -> str:
        """The complete report in plain words, one line for each case that was refused and each warning."""
        lines = [self._headline(), f"converter: {self.converter}; options: {self.options}", ""]
        for title, notes in (("Refused source cases", self.refused), ("Warnings", self.warnings)):
            lines.append(f"{title}: {len(notes)}")
            lines += [f"  [{note.kind}] {note.subject}: {note.message}" for note in notes]
            lines.append("")
        return "\n".join(lines)

    def summary(self, limit: int = 10) -> str:
        """A screenful: at most `limit` refused cases, and each kind of warning with its count and one example."""
        lines = [self._headline()]
        if self.refused:
            lines.append(f"REFUSED, not in the dataset: {len(self.refused)}")
            lines += [f"  {note.subject}: {note.message}" for note in self.refused[:limit]]
            if len(self.refused) > limit:
                lines.append(f"  ... and {len(self.refused) - limit} more, all in the report")
        if self.warnings:
            lines.append(f"warnings: {len(self.warnings)}")
            kinds = defaultdict(list)
            for note in self.warnings:
                kinds[note.kind].append(note)
            for kind, notes in kinds.items():
                example = f"{notes[0].subject}: {notes[0].message}"
                lines.append(f"  {len(notes)} x {kind}, e.g. {textwrap.shorten(example, 150, placeholder=' ...')}")
                if kind == NOT_TAKEN:  # each may be a person
                    lines += [f"    {note.subject}" for note in notes[1:limit]]
        lines.append(f"report: {self.folder / 'conversion_report.txt'}")
        return "\n".join(lines)

    def _headline(self) -> str:
        converted = self.training_cases + self.test_cases
        total = converted + len(self.refused)
        text = (
            f"{self.folder.name}: {converted} of {total} source cases converted, {self.patients} patients, "
            f"{self.training_cases} training and {self.test_cases} test cases, {self.folds} fold(s)"
        )
        return f"{text}\nNOT USABLE, no dataset.json was written: {self.unusable}" if self.unusable else text
