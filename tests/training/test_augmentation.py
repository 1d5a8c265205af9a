"""Augmentation of the recipes: how often, how far, in which order, and what it leaves of the labels."""

import math
import pickle

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_echo.training.augmentation import Augmentation

TENTHS = np.arange(10, 25) / 10  # of SAMUS's gamma


def names(transforms):
    return [type(getattr(step, "transform", step)).__name__ for step in transforms]


def stock(patch, dummy_2d=False, scales=None, **options):
    return nnUNetTrainer.get_training_transforms(patch, (-1.0, 1.0), scales, None, dummy_2d, **options)


def ours(patch, **options):
    return Augmentation().replace(stock(patch, **options), patch)


@pytest.fixture
def seeded():
    np.random.seed(0)  # noqa: NPY002  what nnU-Net's transforms draw from
    torch.manual_seed(0)


def test_the_order_is_samus_and_nothing_is_mirrored():
    first = ["GammaTransform", "SpatialTransform", "ContrastTransform", RemoveLabelTansform.__name__]
    assert names(ours((16, 16)).transforms) == first
    assert names(ours((4, 16, 16)).transforms) == [
        "GammaTransform",
        "Convert3DTo2DTransform",
        "SpatialTransform",
        "Convert2DTo3DTransform",
        *first[2:],
    ]


def test_what_nnunet_does_with_the_labels_stays():
    options = {"use_mask_for_norm": [True], "is_cascaded": True, "foreground_labels": [1, 2]}
    options |= {"regions": [(1, 2), (2,)], "ignore_label": 3, "scales": [[1, 1], [0.5, 0.5]]}
    theirs, mine = stock((16, 16), **options).transforms, ours((16, 16), **options).transforms
    kept = names(mine)[3:]
    assert kept == names(theirs)[-len(kept) :] and kept[:2] == ["MaskImageTransform", RemoveLabelTansform.__name__]
    assert kept[2] == "MoveSegAsOneHotToDataTransform" and kept[-1] == "DownsampleSegForDSTransform"
    assert "ConvertSegmentationToRegionsTransform" in kept


def test_what_lies_outside_is_marked_as_nnunet_marks_it():
    """-1: nnU-Net blanks the image there where it masks, before the label becomes background."""
    mine, theirs = ours((16, 16)).transforms[1], stock((16, 16)).transforms[0]
    assert type(mine) is type(theirs)
    for name in ("border_mode_seg", "padding_value_seg", "mode_seg", "mode_image", "random_crop"):
        assert getattr(mine, name) == getattr(theirs, name)


def test_another_nnunet_is_an_error():
    with pytest.raises(RuntimeError, match="prepares the labels is not among them"):
        Augmentation().replace(ComposeTransforms([]), (16, 16))


def test_gamma_contrast_and_how_often(seeded):
    image = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    gamma, _, contrast, *_ = ours((8, 8)).transforms
    powers, factors = [], []
    for _ in range(2000):
        brighter = gamma(image=image.clone())["image"]
        powers.append(math.log(brighter[0, 4, 4]) / math.log(image[0, 4, 4]))
        stretched = contrast(image=image.clone())["image"]
        factors.append(float((stretched[0, 4, 4] - 0.5) / (image[0, 4, 4] - 0.5)))
        assert stretched.min() >= 0 and stretched.max() <= 1  # clipped
    changed = np.array(powers) != 1
    assert pytest.approx(changed.mean(), abs=0.04) == 0.5 * 14 / 15  # a gamma of 1 changes nothing
    gammas = 1 / np.array(powers)[changed]
    assert np.abs(gammas[:, None] - TENTHS[1:]).min(1).max() < 1e-3  # tenths
    assert {round(g, 1) for g in gammas} == set(TENTHS[1:])
    factors = np.array(factors)
    changed = np.abs(factors - 1) > 1e-4
    assert changed.mean() == pytest.approx(0.5, abs=0.04)
    found = factors[changed]
    assert 0.8 <= found.min() < 0.82 and 1.97 < found.max() <= 2.0
    assert found.mean() == pytest.approx(1.4, abs=0.04)


def test_rotation_enlargement_and_how_often(seeded):
    image = torch.zeros(1, 16, 16)
    _, spatial, *_ = ours((16, 16)).transforms
    matrices = [spatial.get_parameters(image=image)["affine"] for _ in range(2000)]
    matrices = np.array([np.eye(2) if matrix is None else matrix for matrix in matrices])
    scales = 1 / np.sqrt(np.linalg.det(matrices))
    assert np.allclose(np.linalg.norm(matrices, axis=1), 1 / scales[:, None])  # both axes alike
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    turned, enlarged = np.abs(angles) > 1e-9, np.abs(scales - 1) > 1e-9
    assert turned.mean() == pytest.approx(0.5, abs=0.04) and enlarged.mean() == pytest.approx(0.5, abs=0.04)
    assert (turned & enlarged).mean() == pytest.approx(0.25, abs=0.04)
    assert -30 <= angles.min() < -29 and 29 < angles.max() <= 30
    assert scales.min() >= 1 and 1.29 < scales.max() <= 1.3 + 1e-9
    assert scales[enlarged].mean() == pytest.approx(1.15, abs=0.01)


def disc(size, radius):
    y, x = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    return (y**2 + x**2 <= radius**2).to(torch.int16)


def test_a_disc_grows_and_the_image_moves_with_its_labels(seeded):
    label = disc((40, 40), 10)[None]
    label[0, :, 20:] *= 2  # the right half is another structure
    areas = []
    for _ in range(60):
        one = ours((40, 40))(image=label.float().clone(), segmentation=label.clone())
        assert one["image"].shape == one["segmentation"].shape == (1, 40, 40)
        assert set(one["segmentation"].unique().tolist()) == {0, 1, 2}
        areas.append(int((one["segmentation"] > 0).sum()))
        dark, light = (one["image"][one["segmentation"] == k].mean() for k in (0, 2))
        assert dark < 0.3 and light > 1.5
    assert min(areas) > 0.95 * math.pi * 100 and 1.4 < max(areas) / (math.pi * 100) < 1.8


def test_what_is_loaded_fills_the_turned_patch(seeded):
    """Labels beyond the loaded image would be background: a patch all of one label stays so."""
    cos = math.cos(math.radians(30))
    for patch in ((32, 48), (5, 32, 48)):
        augmentation = Augmentation()
        loaded = augmentation.initial_patch_size(patch)
        assert list(loaded) == [*patch[:-2], *(int(np.ceil(n)) for n in (32 * cos + 48 * 0.5, 48 * cos + 32 * 0.5))]
        transforms = ours(patch)
        inside = []
        for _ in range(40):
            one = transforms(image=torch.ones(1, *loaded), segmentation=torch.ones(1, *loaded, dtype=torch.int16))
            assert one["segmentation"].shape == (1, *patch)
            inside.append(one["segmentation"].float().mean())
        assert min(inside) == 1


def test_a_long_patch_is_loaded_no_longer_than_its_diagonal():
    assert Augmentation().initial_patch_size((30, 40)).tolist() == [46, 50]  # the diagonal is reached at 37 degrees
    assert Augmentation().initial_patch_size((10, 400)).tolist() == [209, 401]


def test_the_frames_of_a_clip_are_changed_alike(seeded):
    frame = torch.rand(1, 1, 24, 24)
    label = disc((24, 24), 8).expand(1, 5, 24, 24)
    for _ in range(20):
        one = ours((5, 24, 24))(image=frame.repeat(1, 5, 1, 1), segmentation=label.clone())
        for value in one["image"], one["segmentation"]:
            assert value.shape == (1, 5, 24, 24) and torch.equal(value, value[:, :1].expand_as(value))


def test_deep_supervision_and_regions_come_out(seeded):
    options = {"regions": [(1, 2), (2,)], "ignore_label": 3, "scales": [[1, 1], [0.5, 0.5]]}
    label = disc((16, 16), 6)[None]
    targets = ours((16, 16), **options)(image=label.float(), segmentation=label.clone())["segmentation"]
    assert [tuple(target.shape) for target in targets] == [(3, 16, 16), (3, 8, 8)]
    assert targets[0][0].any() and not targets[0][1:].any()


def test_workers_can_be_sent_it():
    assert pickle.loads(pickle.dumps(ours((8, 8)))).transforms


def test_the_title_says_the_ranges():
    assert Augmentation().title == (
        "gamma 1.0 to 2.4, rotation up to 30 degrees, scale 1.0 to 1.3, contrast 0.8 to 2.0, each with p 0.5"
    )
