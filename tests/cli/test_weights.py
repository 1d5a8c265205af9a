"""`nnunet-echo weights`: a released file becomes one that nnU-Net's own loader takes, and nothing is replaced."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from test_plan import plans  # noqa: F401

from nnunet_echo.cli.main import main
from nnunet_echo.networks import NETWORKS, create_network

pytestmark = pytest.mark.usefixtures("plans")
TRAINER = "nnUNetTrainerSAMUSOfTheTest"


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as SAM's, of a small encoder, and a trainer for it."""
    toy = dict(NETWORKS["samus"].toy)
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / f"{TRAINER}.py").write_text(
        "from nnunet_echo.training.pretrained import PretrainedTrainer\n\n\n"
        f"class {TRAINER}(PretrainedTrainer):\n    network_path = 'samus'\n    network_options = {toy!r}\n"
        "    enable_deep_supervision = False\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    state = create_network("samus", 1, 2, (128, 96), **toy).state_dict()
    names = {re.sub(r"(blocks\.\d+\.mlp)\.fc", r"\1.lin", key): key for key in state if key.startswith(PARTS)}
    torch.save({f"module.{name}": state[key] for name, key in names.items()}, tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")


def line(released: Path, *options: str, output: str = "start.pth") -> list[str]:
    out = str(released.parent / "new" / output)
    return ["weights", str(released), "-d", "770", "-tr", TRAINER, "-c", "2d", "-o", out, *options]


def test_nnunets_own_loader_takes_the_file(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line(released)) == 0
    said = capsys.readouterr().out
    start = released.parent / "new" / "start.pth"
    taken = len(torch.load(released, weights_only=True))
    assert f"SAM or SAMUS: {taken} tensors taken, 0 of them resized; 1 of the network keep their initial" in said
    assert f"nnUNetv2_train 770 2d 0 -tr {TRAINER} -pretrained_weights {start}" in said
    assert [path.name for path in start.parent.iterdir()] == ["start.pth"]
    content = torch.load(start, weights_only=True)
    assert content["pretrained"]["file"] == "sam.pth" and content["pretrained"]["sha256"] in said
    network = create_network("samus", 1, 2, (128, 96), **NETWORKS["samus"].toy)
    load_pretrained_weights(network, str(start))
    assert network.pretrained
    saved = torch.load(released, weights_only=True)
    for name in ("mask_decoder.iou_token.weight", "image_encoder.blocks.2.Space_Adapter.q.weight"):
        assert torch.equal(network.state_dict()[name], saved[f"module.{name}"])
    assert main(line(released)) == 2  # what is there, stays
    assert "there is such a file. Give another name, or remove it first" in capsys.readouterr().err


def test_what_cannot_be_is_said_and_nothing_is_written(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads((released.parent / "preprocessed/Dataset770_Images/nnUNetPlans.json").read_text())
    assert list(plan["configurations"]) == ["2d"]
    nothing = str(released.parent / "none.pth")
    for arguments, message in (
        (["weights", nothing, *line(released)[2:]], "none.pth is not there: expected a file of released weights"),
        (line(released, "-p", "OtherPlans"), "OtherPlans.json is not there. Let nnU-Net plan first"),
        (line(released, "-c", "3d_fullres"), "3d_fullres"),
        (line(released, "-tr", "nnUNetTrainerNone"), "trainer nnUNetTrainerNone: nnU-Net finds none of that name"),
        (line(released, "-tr", "nnUNetTrainerNoMamba"), "weights of SAM or SAMUS, and the network is NoMamba"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (released.parent / "new").exists()
