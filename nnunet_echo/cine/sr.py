"""DICOM structured report (SR) of the numbers of a cine, template TID 1500, by highdicom (extra [dicom]).

Only numbers that passed the gate are in it. Codes are those of pydicom's dictionary, which holds the standard's own:
"by method of disks, single plane 4 chamber" and the like where the view is known, "by US" where it is not.
Source: DICOM PS3.16, TID 1500 (Measurement Report).

By its nature the file has the patient and the study of its source: it is written only where asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_echo import __version__
from nnunet_echo.cine.result import CineResult
from nnunet_echo.cine.seg import complete, read_source
from nnunet_echo.data.quiet import quietly

_SINGLE = {"4CH": "SinglePlane4CMOD", "2CH": "SinglePlane2CMOD"}
_MEASURES = {
    "ef_percent": "LeftVentricularEjectionFraction",
    "edv_ml": "LeftVentricularEndDiastolicVolume",
    "esv_ml": "LeftVentricularEndSystolicVolume",
}


def measured_codes(result: CineResult) -> list[tuple[Any, float, Any]]:
    """(name, value, unit) as codes of what the result has; refused numbers are left out."""
    from pydicom.sr.codedict import codes

    wanted: list[tuple[Any, str, Any]] = []
    plane = _SINGLE.get(result.loops[0].view)
    for number, keyword in _MEASURES.items():
        unit = codes.UCUM.Percent if number == "ef_percent" else codes.UCUM.CubicCentimeter
        plain = f"{keyword}ByUS" if number == "ef_percent" else keyword
        wanted += [
            (getattr(codes.LN, keyword + plane if plane else plain), number, unit),
            (getattr(codes.LN, f"{keyword}BiplaneMOD"), f"{number}_biplane", unit),
        ]
    wanted.append((codes.LN.HeartRate, "heart_rate", codes.UCUM.PerMinute))
    return [
        (name, float(result.numbers[number]), unit)
        for name, number, unit in wanted
        if np.isfinite(result.numbers.get(number, np.nan))
    ]


def write_sr(path: Path, result: CineResult, source: Any) -> None:
    """Write the report of a result whose first clip is the DICOM file `source`: a path, or a pydicom `Dataset`.

    Raises RuntimeError without highdicom, and ValueError where there is no number to report.
    """
    data = read_source(source, result.loops[0])
    measures = measured_codes(result)
    if not measures:
        raise ValueError("sr: every number was refused, a report would be empty. Leave it out of save.")
    document = _document(data, measures, result.identifier)
    with path.open("xb") as file:
        document.save_as(file, enforce_file_format=True)


def check_header(data: Any, name: str) -> None:
    """Raise what `write_sr` would for the header of the file `name`, before there are numbers: a report of one is made.

    highdicom refuses dates, times and the like that the standard does not allow, and quotes them.
    """
    from pydicom.sr.codedict import codes

    _document(complete(data), [(codes.LN.HeartRate, 60.0, codes.UCUM.PerMinute)], "0", name)


def _document(data: Any, measures: list[tuple[Any, float, Any]], identifier: str, name: str = "source") -> Any:
    """The report of `measures` as highdicom's `ComprehensiveSR`; ValueError for a header that it does not take."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise RuntimeError("SR is written by highdicom. Install it: pip install 'nnunet-echo[dicom]'.") from error
    try:
        with quietly():
            return _made(data, measures, identifier)
    except Exception as error:  # whatever a value of the file leads to
        raise ValueError(
            f"{name}: its patient, study or character set has values that the standard does not allow and highdicom "
            f"does not write ({type(error).__name__}). Give the scanner's own file, or leave sr out of --save."
        ) from error


def _made(data: Any, measures: list[tuple[Any, float, Any]], identifier: str) -> Any:
    import highdicom
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    algorithm = sr.AlgorithmIdentification(name="nnunet-echo cine, research use", version=__version__)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=f"cine {identifier}"),
        finding_sites=[sr.FindingSite(codes.SCT.LeftVentricle)],
        algorithm_id=algorithm,
        measurements=[sr.Measurement(name=name, value=value, unit=unit) for name, value, unit in measures],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=data.SOPClassUID, referenced_sop_instance_uid=data.SOPInstanceUID
            )
        ],
    )
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(), name="nnunet-echo", model_name=f"nnunet-echo cine {__version__}"
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.Echocardiography,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = sr.ComprehensiveSR(
        evidence=[data],
        content=report,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="nnunet-echo",
        is_complete=True,
        is_verified=False,
    )
    document.SeriesDescription = "nnunet-echo, research use, not a medical device"
    return document
