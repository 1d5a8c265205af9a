"""`nnunet-echo check DATASET`: what is wrong or odd with a raw dataset, a line for each finding."""

from __future__ import annotations

import argparse

from nnunet_echo.cli.options import add_dataset, add_raw, add_workers
from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.errors import printable
from nnunet_echo.nnunet.folders import find_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    add_dataset(parser, "id (751), name (Dataset751_CAMUS) or path of a raw dataset")
    add_raw(parser)
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 without a problem, 1 with one. Errors, no verdict among them, as `check_dataset`'s."""
    folder = find_dataset(args.dataset, args.raw)
    findings = check_dataset(folder, args.workers, progress=True)
    problems = [finding.text for finding in findings if finding.problem]
    remarks = [finding.text for finding in findings if not finding.problem]
    for title, texts in (("problem", problems), ("remark", remarks)):
        for text in texts:
            print(printable(f"{title}: {text}"))
    counts = f"{len(problems)} problem(s), {len(remarks)} remark(s)"
    verdict = "nnU-Net will stumble; see above." if problems else "Ready for nnU-Net."
    print(printable(f"{folder.name}: {counts}. {verdict}"))
    return 1 if problems else 0
