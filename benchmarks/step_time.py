"""What does a training step of each network cost, as a ratio to nnU-Net's own U-Net in the same run?

Forward and backward of one batch at the budget of benchmarks/camus_budget.py: 8 images of 160 x 192, 16 to 256
features, one channel, four classes. Prints the median of the repetitions, and its ratio to the U-Net's, in Markdown.

    python benchmarks/step_time.py [--repetitions 5] [--device cpu]
"""

from __future__ import annotations

import argparse
import pkgutil
import time
from statistics import median

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from nnunet_echo.networks.skeleton import UNetShape
from nnunet_echo.scan import choose_backend

PATCH, BATCH, CHANNELS, CLASSES = (160, 192), 8, 1, 4
PLAN = {
    "features_per_stage": [16, 32, 64, 128, 256, 256],
    "kernel_sizes": [[3, 3]] * 6,
    "strides": [[1, 1], *[[2, 2]] * 5],
    "n_conv_per_stage": [2] * 6,
    "n_conv_per_stage_decoder": [2] * 5,
}
NETWORKS = (
    "u_mamba:NoMamba", "u_mamba:UMambaBot", "u_mamba:UMambaEnc", "lkm_unet:LKMUNet", "vm_unet:VMUNet",
    "vision_lstm:ViLUNet", "vision_lstm:ViL2UNet",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    args = parser.parse_args()
    print(f"scan: {choose_backend(args.device)}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| network | parameters, M | step, s | ratio |\n| --- | ---: | ---: | ---: |")
    x = torch.randn(BATCH, CHANNELS, *PATCH, device=args.device)
    stock = None
    for name in ("nnU-Net", *NETWORKS):
        network = (_nnu_net() if name == "nnU-Net" else _network(name)).to(args.device)
        seconds = median(_step(network, x) for _ in range(args.repetitions + 1))  # the first one is a warm-up
        stock = stock or seconds
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        print(f"| {name.rpartition(':')[2]} | {millions:.2f} | {seconds:.2f} | {seconds / stock:.1f} |", flush=True)


def _nnu_net() -> nn.Module:
    shape = UNetShape.from_plan(CHANNELS, CLASSES, PLAN)
    return PlainConvUNet(
        CHANNELS, n_stages=shape.n_stages, features_per_stage=shape.features_per_stage, kernel_sizes=shape.kernel_sizes,
        strides=shape.strides, n_conv_per_stage=shape.n_conv_per_stage, num_classes=CLASSES,
        n_conv_per_stage_decoder=shape.n_conv_per_stage_decoder, deep_supervision=True, **shape.block_arguments(),
    )


def _network(name: str) -> nn.Module:
    network = pkgutil.resolve_name(f"nnunet_echo.networks.{name}")
    return network.from_plan(CHANNELS, CLASSES, PATCH, PLAN, deep_supervision=True)


def _step(network: nn.Module, x: Tensor) -> float:
    network.zero_grad(set_to_none=True)
    began = time.perf_counter()
    sum(logits.square().mean() for logits in network(x)).backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
