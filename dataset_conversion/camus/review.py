"""What shows only in the pixels of CAMUS once it is converted."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_echo.data.cases import Written
from nnunet_echo.data.findings import Note

from .dataset_json import LV

SUSPECT_EF = ("CAMUS_patient0185", "CAMUS_patient0217")


def review(written: Mapping[str, Written]) -> list[Note]:
    """What shows only in the pixels: ED and ES the wrong way round, a spacing that was lost; and the two suspect EF."""
    notes = []
    # No heart is 250 mm away from its probe. The phantom may be drawn with such pixels, but then all of it.
    lost = len({case.spacing[:2] for case in written.values()}) > 1
    for case_id, case in written.items():
        systole = written.get(case_id[:-2] + "ES")
        if case_id.endswith("_ED") and case.labelled and systole and systole.labelled:
            ed, es = (item.label_sizes.get(LV, 0) / 100 for item in (case, systole))
            if ed <= es:
                notes.append(
                    Note(
                        "ED not larger than ES",
                        case_id,
                        f"LV area {ed:.1f} cm2 at ED, {es:.1f} cm2 at ES: "
                        "the phases may be exchanged; they stay as the files name them.",
                    )
                )
        if case.spacing[:2] == (1.0, 1.0) and (lost or min(case.size[:2]) > 250):
            notes.append(
                Note(
                    "spacing lost",
                    case_id,
                    "spacing is 1 x 1 mm, the release has 0.308 mm; volumes in mL from this copy would be wrong.",
                )
            )
    for patient in SUSPECT_EF:
        if any(case_id.startswith(f"{patient}_2CH") for case_id in written):
            notes.append(
                Note(
                    "suspect EF",
                    patient,
                    "the EF in the release does not fit the masks (the 2CH sequence "
                    "runs from ES to ED). Report EF results with and without this patient.",
                )
            )
    return notes
