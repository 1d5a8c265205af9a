"""One file of a trained model: its networks, how to prepare an image, its labels, and a frame to test it with.

The file is a zip of

    cine.json              format, trainer, folds, configuration, what of plans and dataset.json is needed, versions
    fold_<k>.pt2 | .onnx   the network of a fold
    self_test.npz          a frame, its spacing, and the labels that PyTorch gave it before the export

Nothing of the training's patients is in it: of the plan only what prepares an image, of the dataset only its labels.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from torch import nn

from nnunet_echo import __version__
from nnunet_echo.cine.export.programs import FORMATS, from_onnx, from_pt2, to_program, why_not
from nnunet_echo.cine.loading import Fold
from nnunet_echo.cine.model import CineModel, SelfTest
from nnunet_echo.cine.steps import Steps, check_step_size
from nnunet_echo.nnunet.folders import replace_file
from nnunet_echo.nnunet.plans import median_image_mm

_FORMAT = 1
_PLANS = (
    "plans_name",
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "label_manager",
    "foreground_intensity_properties_per_channel",
)
_DATASET = ("channel_names", "modality", "labels", "regions_class_order", "file_ending")
_VERSIONS = ("torch", "nnunetv2", "onnx", "onnxscript", "numpy")
_TEST_SIZE = 160  # pixels along the longer side of the self-test's frame


def export_model(
    source: str | Path,
    out: str | Path,
    format: str,
    folds: Sequence[Fold] | None = (0,),
    checkpoint: str = "checkpoint_final.pth",
    *,
    import_trainer: bool = False,
) -> SelfTest:
    """Write the model in the folder `source` to the file `out`, as "pt2" or "onnx"; returns its self-test there.

    Raises ValueError for a file that is there already and for an unknown format, RuntimeError for what cannot be
    exported, or not be read back, all before anything is written, and as `loading.load_folder`.
    """
    source, out = Path(source), Path(out)
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: expected one of {', '.join(FORMATS)}.")
    if out.exists():
        raise ValueError(f"{out}: is there already, and is not replaced. Choose another name, or move it away.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: there is no such folder. Make it first.")
    if source.is_file():
        raise ValueError(f"{source}: is a file; only folders of nnUNet_results can be exported. Name one.")
    if reason := why_not(format):
        raise RuntimeError(f"format={format!r} {reason}")
    model = CineModel.load(source, folds, checkpoint=checkpoint, workers=1, import_trainer=import_trainer)
    steps = model.steps
    shape = (steps.channels, *steps.patch_size)
    networks = [network for network in model.networks if isinstance(network, nn.Module)]
    programs = {
        f"fold_{fold}{FORMATS[format]}": to_program(network, shape, format)
        for fold, network in zip(model.folds, networks, strict=True)
    }
    frame, spacing = _test_frame(model)
    labels = _labels(model, frame, spacing)
    test = io.BytesIO()
    np.savez_compressed(test, frame=frame, spacing=np.array(spacing), labels=labels)
    contents = {**programs, "self_test.npz": test.getvalue()}
    about = _about(model, format, contents)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cine.json", json.dumps(about, indent=2) + "\n")
        for name, content in contents.items():
            archive.writestr(name, content)
    written = file.getvalue()
    try:
        found = _load(written, out.name, device="cpu").self_test()  # as anybody will load it
    except ValueError as error:
        raise RuntimeError(f"{source}: what was exported cannot be read back, and was not written: {error}") from error
    replace_file(out, written)
    return found


def load_archive(file: str | Path, *, device: str = "cpu", mirroring: bool = True, step_size: float = 0.5) -> CineModel:
    """The model in a file that `export_model` wrote.

    Raises ValueError for a file that is none, is cut or changed, or holds what could run code, and for a device other
    than the CPU, RuntimeError where onnxruntime is needed and not installed.
    """
    return _load(Path(file).read_bytes(), str(file), device, mirroring, step_size, Path(file))


def _load(
    content: bytes, name: str, device: str, mirroring: bool = True, step_size: float = 0.5, source: Path | None = None
) -> CineModel:
    if device != "cpu":
        raise ValueError(
            f"device={device!r}: {name} was exported for the CPU. Load the folder of the training instead."
        )
    check_step_size(step_size)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            about = json.loads(archive.read("cine.json"))
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']} is not that of this version, {_FORMAT}")
            contents = {entry: archive.read(entry) for entry in about["sha256"]}
        for entry, expected in about["sha256"].items():
            if hashlib.sha256(contents[entry]).hexdigest() != expected:
                raise ValueError(f"{entry} was changed")
        trainer, network, folds = str(about["trainer"]), str(about["network"]), tuple(about["folds"])
        ending = FORMATS[about["network_format"]]
        programs = {f"fold_{fold}{ending}": contents[f"fold_{fold}{ending}"] for fold in folds}
        if not programs:
            raise ValueError("it has no folds")
        axes = about["mirror_axes"] if mirroring else None
        steps = Steps(about["plans"], about["dataset_json"], about["configuration"], axes, step_size)
        with np.load(io.BytesIO(contents["self_test.npz"]), allow_pickle=False) as test:
            height, width = (float(n) for n in test["spacing"])
            test_frame = test["frame"], (height, width), test["labels"]
    except Exception as error:  # of zip and its compressions, JSON, NumPy, and nnU-Net's own checks
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ValueError(
            f"{name}: is no model of nnunet-echo export, or is damaged ({reason.removesuffix('.')}). Export it again."
        ) from error
    read = from_pt2 if ending == ".pt2" else from_onnx
    return CineModel(
        steps,
        tuple(read(content, f"{name}/{entry}") for entry, content in programs.items()),
        (source,) if source else (),
        trainer,
        network,
        folds,
        "torch" if ending == ".pt2" else "onnxruntime",
        test_frame=test_frame,
    )


def _about(model: CineModel, format: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
    steps = model.steps
    plans = {key: steps.manager.plans[key] for key in _PLANS if key in steps.manager.plans}
    plans["configurations"] = {steps.configuration: _configuration(steps)}
    plans["dataset_name"] = "model"
    return {
        "format": _FORMAT,
        "network_format": format,
        "trainer": model.trainer,
        "network": model.network,
        "folds": list(model.folds),
        "configuration": steps.configuration,
        "mirror_axes": steps.mirror_axes,
        "input": "(B, channels, height, width) float32, normalised and resampled as the plan says",
        "grey": "luma of ITU-R BT.601, 0 to 255",
        "plans": plans,
        "dataset_json": {key: steps.dataset_json[key] for key in _DATASET if key in steps.dataset_json},
        "versions": {"nnunet-echo": __version__, **{name: _version(name) for name in _VERSIONS}},
        "weights_sha256": model.hash,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }


def _configuration(steps: Steps) -> dict[str, Any]:
    """The model's configuration with what it inherits, which then says so no more: what it came from stays behind.

    A median image that is inherited is in pixels of another spacing, so it is told in those of this one.
    """
    found = {key: value for key, value in steps.plan.configuration.items() if key != "inherits_from"}
    median = median_image_mm(steps.manager.plans["configurations"], steps.configuration)
    if median is not None:
        found["median_image_size_in_voxels"] = [n / mm for n, mm in zip(median, found["spacing"], strict=True)]
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _test_frame(model: CineModel) -> tuple[ndarray, tuple[float, float]]:
    """A synthetic sector of speckle, (C, H, W) uint8, with a dark round in it; and the spacing that fits the plan."""
    rows, columns = model.steps.patch_size
    scale = _TEST_SIZE / max(rows, columns)
    height, width = max(8, round(rows * scale)), max(8, round(columns * scale))
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    rng = np.random.default_rng(0)
    tissue = rng.rayleigh(50, size=(model.steps.channels, height, width)) + 30
    chamber = ((y - 0.5) / 0.28) ** 2 + ((x - 0.5) / 0.16) ** 2 < 1
    sector = np.abs(x - 0.5) <= 0.1 + 0.45 * y
    frame = np.where(sector, np.where(chamber, tissue * 0.2, tissue), 0)
    pixel = float(model.steps.plan.spacing[-1]) / scale
    return np.clip(frame, 0, 255).astype(np.uint8), (pixel, pixel)


def _labels(model: CineModel, frame: ndarray, spacing: tuple[float, float]) -> ndarray:
    return model.predict(frame[:, None], model.frame_properties(spacing))[0]
