"""dataset.json of the datasets that CAMUS becomes: frames, cines (CAMUS-Full), sparsely labelled ones (CAMUS-Semi)."""

from __future__ import annotations

from typing import Any

from nnunet_echo.data.cine import sequence_json

LV, IGNORE = 1, 4

DATASET_JSON: dict[str, Any] = {
    "name": "CAMUS",
    "description": "Cardiac Acquisitions for Multi-structure Ultrasound Segmentation: apical views at ED and ES",
    "reference": "S. Leclerc et al., IEEE TMI 38(9):2198-2210, 2019, doi 10.1109/TMI.2019.2900516",
    "licence": "CC BY-NC-SA 4.0, non-commercial scientific research only",
    "channel_names": {"0": "ultrasound"},  # not a name that nnU-Net treats in a special way: z-score
    "labels": {"background": 0, "LV": LV, "MYO": 2, "LA": 3},
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
    "case_id_pattern": r"(?P<patient>CAMUS_(?:patient|test)\d{4})_(?P<view>2CH|4CH)_(?P<phase>ED|ES)",
}
CINES_JSON = {
    **DATASET_JSON,
    "name": "CAMUS_Full",
    "description": "Cardiac Acquisitions for Multi-structure Ultrasound Segmentation: apical views from ED to ES",
    "case_id_pattern": r"(?P<patient>CAMUS_(?:patient|test)\d{4})_(?P<view>2CH|4CH)",
    "sequence": sequence_json("mm"),
}
SPARSE_JSON = {**CINES_JSON, "name": "CAMUS_Semi", "labels": {**DATASET_JSON["labels"], "ignore": IGNORE}}
