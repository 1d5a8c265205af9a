"""How names tell whose an image is: a regular expression with the group `patient`, as it is typed."""

from __future__ import annotations

import re

GROUPS = ("view", "phase", "frame")  # that are read beside the patient


def patient_pattern(text: str, option: str = "--patients") -> str:
    r"""The `case_id_pattern` of names in which the expression `text` is found somewhere.

    Raises `ValueError`, naming the `option`, for one that cannot be used.

    >>> re.fullmatch(patient_pattern(r"(?P<patient>p\d+)"), "scan_p12_ED")["patient"]
    'p12'
    """
    pattern = rf".*?(?:{text}).*"
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"{option} {text!r}: neither a file nor a regular expression ({error}).") from error
    if "patient" not in groups:
        raise ValueError(
            f"{option} {text!r}: no such file, and as a regular expression it needs a group patient, as "
            r"in '(?P<patient>patient\d+)'; view, phase and frame may be groups, too."
        )
    return pattern
