"""What nnU-Net's predictor does to one image, step by step, by nnU-Net's own functions, and nothing else.

An image is (C, Z, H, W); a frame has Z = 1. The masks are those of nnUNetv2_predict, pixel for pixel, so order and
precision of each sum are nnU-Net's too: means over the same memory layout, tiles added up in 16 bits, in its order.
Left out is what changes no pixel: resampling an empty segmentation, and logits where their order is known (`resample`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from nnunet_echo.cine.resample import labels_of

Forward = Callable[[Tensor], Tensor]  # (B, C, *patch) -> logits (B, K, *patch)
Properties = dict[str, Any]  # nnU-Net's, of an image: "spacing", and what the steps note for each other


def check_step_size(step_size: float) -> None:
    """Raise ValueError for a step of the tiles, in patches, that cannot be."""
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size={step_size}: must be above 0 and at most 1. nnU-Net's default is 0.5.")


class Steps:
    """The steps of one plan: `preprocess`, `logits`, `segmentation`, in this order.

    `plans` and `dataset_json` are the contents of nnU-Net's files, `configuration` a 2D one of the plan. `mirror_axes`
    are those of the checkpoint (None: no mirroring), `step_size` is the step of the tiles, in patches. Raises
    ValueError for a configuration that is not there or not 2D, and for a cascade.
    """

    def __init__(
        self,
        plans: Mapping[str, Any],
        dataset_json: Mapping[str, Any],
        configuration: str,
        mirror_axes: Sequence[int] | None = None,
        step_size: float = 0.5,
        device: str = "cpu",
    ) -> None:
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        if configuration not in plans["configurations"]:
            raise ValueError(
                f"configuration={configuration!r}: the plan has {', '.join(plans['configurations'])}. Choose one."
            )
        check_step_size(step_size)
        self.dataset_json = dict(dataset_json)
        self.manager = PlansManager(dict(plans))
        self.plan = self.manager.get_configuration(configuration)
        self.configuration = configuration
        self.patch_size = tuple(int(n) for n in self.plan.patch_size)
        refusal = "predicts single 2D networks only; use nnUNetv2_predict -i IMAGES -o MASKS -d DATASET -c"
        if len(self.patch_size) != 2:
            raise ValueError(f"configuration={configuration!r}: is 3D, and this {refusal} {configuration}.")
        if self.plan.previous_stage_name is not None:
            raise ValueError(
                f"configuration={configuration!r}: is a cascade behind {self.plan.previous_stage_name}, and this "
                f"{refusal} {configuration} -prev_stage_predictions MASKS_OF_{self.plan.previous_stage_name.upper()}."
            )
        self.label_manager = self.manager.get_label_manager(self.dataset_json)
        self.classes = self.label_manager.num_segmentation_heads
        self.channels = determine_num_input_channels(self.manager, self.plan, self.dataset_json)
        self.mirror_axes = None if mirror_axes is None else tuple(mirror_axes)
        if self.mirror_axes and not set(self.mirror_axes) <= {0, 1}:
            raise ValueError(f"mirror_axes={self.mirror_axes}: must be of 0 and 1. The checkpoint is damaged.")
        self.step_size = step_size
        self.device = torch.device(device)

    @property
    def labels(self) -> dict[str, int]:
        """Structure -> its number in the masks, without the background; of regions the number that is written."""
        named = {name: value for name, value in self.dataset_json["labels"].items() if name != "ignore"}
        named = {name: value for name, value in named.items() if value not in (0, [0])}
        if self.label_manager.has_regions:
            return dict(zip(named, map(int, self.label_manager.regions_class_order), strict=True))
        return {name: int(value) for name, value in named.items()}

    def preprocess(self, image: ndarray, properties: Properties) -> Tensor:
        """The image (C, Z, H, W) as the network gets it, (C, Z, h, w) float32; notes in `properties` how to go back."""
        from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
        from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

        if len(image) != self.channels:
            raise ValueError(f"the image has {len(image)} channels, but the model takes {self.channels}.")
        preprocessor = self.plan.preprocessor_class(verbose=False)
        if type(preprocessor) is not DefaultPreprocessor:
            data, _, _ = preprocessor.run_case_npy(image, None, properties, self.manager, self.plan, self.dataset_json)
            return torch.from_numpy(data).to(torch.float32, memory_format=torch.contiguous_format)
        forward = self.manager.transpose_forward
        data = image.astype(np.float32).transpose([0, *[axis + 1 for axis in forward]])
        spacing = [properties["spacing"][axis] for axis in forward]
        properties["shape_before_cropping"] = data.shape[1:]
        data, empty, properties["bbox_used_for_cropping"] = crop_to_nonzero(data)
        properties["shape_after_cropping_and_before_resampling"] = data.shape[1:]
        target = self._spacing_3d(spacing)
        shape = compute_new_shape(data.shape[1:], spacing, target)
        if min(shape) < 1:
            raise ValueError(
                f"spacing={tuple(spacing)}: at the plan's {tuple(target)} nothing is left of {data.shape[1:]} pixels. "
                "Check the size of a pixel in the file."
            )
        intensities = self.manager.foreground_intensity_properties_per_channel
        data = preprocessor._normalize(data, empty, self.plan, intensities)
        data = self.plan.resampling_fn_data(data, shape, spacing, target)
        return torch.from_numpy(np.asarray(data)).to(torch.float32, memory_format=torch.contiguous_format)

    def logits(self, data: Tensor, networks: Sequence[Forward]) -> Tensor:
        """Logits (K, Z, h, w) float16 on the CPU of preprocessed data (C, Z, h, w): the mean of the networks."""
        total: Tensor | None = None
        with torch.inference_mode():
            for network in networks:
                logits = self._sliding_window(data, network).to("cpu")
                total = logits if total is None else total.add_(logits)
            assert total is not None
            return total if len(networks) == 1 else total.div_(len(networks))

    def segmentation(self, logits: Tensor, properties: Properties) -> ndarray:
        """The label map (Z, H, W) of the image that `preprocess` noted its properties of."""
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        labels = self._labels_of_a_frame(logits, properties)
        if labels is None:
            return convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, self.manager, self.plan, self.label_manager, properties, num_threads_torch=1
            )
        box = tuple(slice(start, end) for start, end in properties["bbox_used_for_cropping"])
        segmentation = np.zeros(properties["shape_before_cropping"], np.uint8)
        segmentation[box] = labels[None]
        return segmentation.transpose(self.manager.transpose_backward)

    def probabilities(self, logits: Tensor, properties: Properties) -> tuple[ndarray, ndarray]:
        """The label map (Z, H, W), and the probabilities (K, Z, H, W) float32 as nnU-Net resamples them.

        Where nnU-Net cuts off a black border the background is certain. Probabilities that round to the same number
        hide which logit was larger, so the label map is that of `segmentation`.
        """
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            self.manager,
            self.plan,
            self.label_manager,
            properties,
            return_probabilities=True,
            num_threads_torch=1,
        )
        return self.segmentation(logits, properties), probabilities

    def _labels_of_a_frame(self, logits: Tensor, properties: Properties) -> ndarray | None:
        """By the fast way, where it is nnU-Net's formula; None where it is not."""
        from nnunetv2.preprocessing.resampling.default_resampling import (
            determine_do_sep_z_and_axis,
            resample_data_or_seg_to_shape,
        )
        from nnunetv2.utilities.label_handling.label_handling import LabelManager

        resample = self.plan.resampling_fn_probabilities
        options = getattr(resample, "keywords", {})
        plain = getattr(resample, "func", resample) is resample_data_or_seg_to_shape
        if (
            self.label_manager.has_regions
            or type(self.label_manager) is not LabelManager
            or logits.shape[1] != 1
            or not plain
            or options.get("is_seg")
            or options.get("order") != 1
        ):
            return None
        spacing = [properties["spacing"][axis] for axis in self.manager.transpose_forward]
        separate, axis = determine_do_sep_z_and_axis(
            options.get("force_separate_z", False), self._spacing_3d(spacing), spacing
        )
        shape = properties["shape_after_cropping_and_before_resampling"]
        if not (separate and axis == 0) or shape[0] != 1:
            return None
        return labels_of(logits[:, 0].numpy(), shape[1:])

    def _spacing_3d(self, spacing: Sequence[float]) -> list[float]:
        """The plan's spacing with that of the image along Z, which a 2D configuration leaves as it is."""
        planned = list(self.plan.spacing)
        return planned if len(planned) == len(spacing) else [spacing[0], *planned]

    def _sliding_window(self, data: Tensor, network: Forward) -> Tensor:
        from acvl_utils.cropping_and_padding.padding import pad_nd_image
        from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

        padded, back = pad_nd_image(data, self.patch_size, "constant", {"value": 0}, True, None)
        padded = padded.to(self.device)
        gaussian = compute_gaussian(self.patch_size, sigma_scale=1.0 / 8, value_scaling_factor=10, device=self.device)
        logits = torch.zeros((self.classes, *padded.shape[1:]), dtype=torch.half, device=self.device)
        weights = torch.zeros(padded.shape[1:], dtype=torch.half, device=self.device)
        rows, columns = compute_steps_for_sliding_window(padded.shape[2:], self.patch_size, self.step_size)
        height, width = self.patch_size
        autocast = torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()  # as nnU-Net
        with autocast:
            for z, y, x in itertools.product(range(padded.shape[1]), rows, columns):
                tile = (slice(None), z, slice(y, y + height), slice(x, x + width))
                patch = padded[tile][None].clone(memory_format=torch.contiguous_format)
                prediction = self._mirrored(network, patch)[0]
                prediction *= gaussian
                logits[tile] += prediction
                weights[tile[1:]] += gaussian
        torch.div(logits, weights, out=logits)
        if torch.isinf(logits).any():
            raise RuntimeError(
                "the network's logits are too large for 16 bits, as which nnU-Net adds tiles up. Its weights are "
                "damaged, or the image's values are far from those it was trained on."
            )
        return logits[:, back[1], back[2], back[3]]

    def _mirrored(self, network: Forward, tile: Tensor) -> Tensor:
        """Logits of (1, C, h, w), the mean over all mirrored forms."""
        prediction = network(tile)
        if self.mirror_axes is None:
            return prediction
        axes = [axis + 2 for axis in self.mirror_axes]
        ways = [way for n in range(len(axes)) for way in itertools.combinations(axes, n + 1)]
        for way in ways:
            prediction += torch.flip(network(torch.flip(tile, way)), way)
        prediction /= len(ways) + 1
        return prediction


def edge_entropy(logits: Tensor, label: int) -> float | None:
    """How unsure the network is along the edge of a structure: mean entropy of the softmax there, 0 to 1.

    `logits` (K, h, w) of one frame. The edge are the pixels of `label` that touch another label, or the border of the
    image, with a side. The unit is log K, the largest entropy there is. None where the structure is not there.

    >>> logits = torch.tensor([[[0.0, 9.0]], [[0.0, -9.0]]])  # no idea, and sure
    >>> edge_entropy(logits, 0)
    0.5
    """
    values = logits.float()
    inside = values.argmax(0) == label
    if not inside.any():
        return None
    padded = torch.nn.functional.pad(inside, (1, 1, 1, 1))
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    log_p = values[:, inside & ~surrounded].log_softmax(0)
    entropy = -(log_p.exp() * log_p).sum(0).mean() / np.log(len(values))
    return round(float(entropy), 6)
