"""Drawn hearts, and nnU-Net's U-Net trained on them for a moment: what benchmarks predict with, where no data is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_echo.nnunet.plans import unet_architecture

TRAINER = "nnUNetTrainer"


def drawn_heart(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A sector of speckle (H, W) uint8 with a ventricle, its wall and an atrium, and the labels of these."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size).reshape(2, 1, 1)
    x = x - 0.5 - rng.uniform(-0.03, 0.03)
    grow = rng.uniform(0.85, 1.15)

    def ellipse(centre: float, height: float, width: float) -> np.ndarray:
        return ((y - centre) / height) ** 2 + (x / width) ** 2 < grow

    labels = np.zeros(size, np.uint8)
    labels[ellipse(0.45, 0.32, 0.17)] = 2
    labels[ellipse(0.8, 0.14, 0.12)] = 3
    labels[ellipse(0.47, 0.25, 0.11)] = 1
    brightness = np.array([70, 15, 120, 20])[labels]
    grey = brightness * rng.rayleigh(0.8, size)
    return np.where(np.abs(x) < 0.08 + 0.42 * y, np.clip(grey, 1, 255), 0).astype(np.uint8), labels


def write_model(folder: Path, patch: tuple[int, int], spacing: float, features: tuple[int, int], steps: int) -> Path:
    """A folder of nnUNet_results with nnU-Net's U-Net, trained for a few steps on drawn hearts."""
    shape = unet_architecture(patch, features=features)
    convolutions = {
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling: dict[str, object] = {}
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        resampling[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        options = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{what}_kwargs"] = options
    plans = {
        "dataset_name": "Dataset999_Drawn",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            "2d": {
                "data_identifier": "nnUNetPlans_2d",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 4,
                "patch_size": list(patch),
                "median_image_size_in_voxels": list(patch),
                "spacing": [spacing, spacing],
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "batch_dice": True,
                **resampling,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {**shape, **convolutions},
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }
    labels = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
    dataset = {"channel_names": {"0": "ultrasound"}, "labels": labels, "file_ending": ".nii.gz"}
    norm, nonlin = {"norm_op": nn.InstanceNorm2d}, {"nonlin": nn.LeakyReLU}
    network = PlainConvUNet(1, **shape, num_classes=4, **{**convolutions, "conv_op": nn.Conv2d, **norm, **nonlin})
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for step in range(steps):
        drawn = [drawn_heart(patch, 4 * step + k) for k in range(4)]
        images = torch.stack([torch.from_numpy(grey).float() for grey, _ in drawn])[:, None]
        images = (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True)
        target = torch.stack([torch.from_numpy(mask).long() for _, mask in drawn])
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), target).backward()
        optimizer.step()
    folder = folder / f"{TRAINER}__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": TRAINER,
        "init_args": {"configuration": "2d"},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder
