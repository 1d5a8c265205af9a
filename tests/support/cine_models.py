"""Folders of trained models with random weights, images for them, and nnU-Net's own masks of those images.

It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from nnunet_echo.nnunet.plans import unet_architecture

LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
REGIONS = {"background": 0, "heart": [1, 2, 3], "wall": [2], "LA": [3]}


def plans(
    patch: Sequence[int] = (32, 48), spacing: Sequence[float] = (1.0, 1.0), reader: str = "SimpleITKIO", **changes
) -> dict:
    """What nnU-Net's planner writes, for one small 2D configuration."""
    shape = unet_architecture(patch, features=(4, 8))
    resample = {f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")}
    options = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [40.0, 52.0],
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **resample,
        "resampling_fn_data_kwargs": {**options, "order": 3},
        "resampling_fn_seg_kwargs": {**options, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**options, "order": 1},
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                **shape,
                "conv_op": "torch.nn.modules.conv.Conv2d",
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        **changes,
    }
    intensities = {"mean": 80.0, "std": 40.0, "percentile_00_5": 1.0, "percentile_99_5": 200.0}
    return {
        "dataset_name": "Dataset751_CAMUS",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): intensities for c in range(3)},
    }


def dataset_json(channels: int = 1, ending: str = ".nii.gz", regions: bool = False) -> dict:
    content = {
        "channel_names": {str(channel): "ultrasound" for channel in range(channels)},
        "labels": REGIONS if regions else LABELS,
        "file_ending": ending,
        "numTraining": 4,
    }
    return {**content, "regions_class_order": [1, 2, 3]} if regions else content


def write_model(
    folder: Path,
    trainer: str = "nnUNetTrainer",
    content: dict | None = None,
    dataset: dict | None = None,
    folds: Sequence[int | str] = (0,),
    mirror_axes: Sequence[int] | None = None,
    network: torch.nn.Module | None = None,
    configuration: str = "2d",
) -> Path:
    """The folder of a trainer as nnU-Net leaves it, but for the logs; `network` gives the weights if it is given."""
    from nnunet_echo.analysis.costs import build_network

    content, dataset = content or plans(), dataset or dataset_json()
    folder = folder / f"{trainer}__nnUNetPlans__{configuration}"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in folds:
        torch.manual_seed(len(str(fold)) + 7 * list(folds).index(fold))
        with redirect_stdout(io.StringIO()):
            built = network or build_network(content, dataset, trainer, configuration)[0]
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": built.state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": configuration, "fold": fold},
            "inference_allowed_mirroring_axes": None if mirror_axes is None else tuple(mirror_axes),
            "logging": {"ema_fg_dice": [np.float64(0.5)]},
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def frame(shape: Sequence[int], seed: int, border: int = 3) -> np.ndarray:
    """Grey blobs with a black border, uint8."""
    rng = np.random.default_rng(seed)
    grey = gaussian_filter(rng.normal(size=shape), [0] * (len(shape) - 2) + [3, 3])
    grey = (np.clip(grey / grey.std() + 2, 0.2, 4) * 60).astype(np.uint8)
    grey[..., :border, :] = 0
    return grey


def write_images(
    folder: Path,
    shapes: Sequence[Sequence[int]] = ((60, 70), (45, 90)),
    spacing: Sequence[float] = (0.7, 0.6),
    channels: int = 1,
    ending: str = ".nii.gz",
) -> Path:
    """One case of each shape (height, width), or (slices, height, width)."""
    folder.mkdir(parents=True)
    for case, shape in enumerate(shapes):
        for channel in range(channels):
            grey, file = frame(shape, 10 * case + channel, border=3 + case), folder / f"c{case}_{channel:04d}{ending}"
            if ending == ".png":
                Image.fromarray(grey).save(file)
            else:
                image = sitk.GetImageFromArray(grey)
                image.SetSpacing([*spacing[::-1], 5.0][: len(shape)])
                sitk.WriteImage(image, str(file))
    return folder


def nnunet_masks(model: Path, images: Path, masks: Path, folds: Sequence[int | str] = (0,), **options: bool) -> Path:
    """By nnU-Net's own predictor, in this process."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    masks.mkdir(parents=True)
    with redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, **options)
        predictor.initialize_from_trained_model_folder(str(model), tuple(folds))
        predictor.list_of_parameters = [dict(weights) for weights in predictor.list_of_parameters]
        ending = predictor.dataset_json["file_ending"]
        cases = sorted({file.name[: -len(ending) - 5] for file in images.iterdir()})
        files = [sorted(map(str, images.glob(f"{case}_*{ending}"))) for case in cases]
        predictor.predict_from_files_sequential(files, [str(masks / case) for case in cases])
    return masks


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)) if file.suffix == ".png" else sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def different(ours: Path, theirs: Path, ending: str = ".nii.gz") -> dict[str, int]:
    """Of each mask of nnU-Net's the number of other pixels in ours; -1 for another shape."""
    found = {}
    for file in sorted(theirs.glob(f"*{ending}")):
        a, b = pixels(ours / file.name), pixels(file)
        found[file.name] = int((a != b).sum()) if a.shape == b.shape else -1
    return found
