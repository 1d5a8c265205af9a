"""What does SAMUS with its ViT-B cost at 256 x 256, with and without recomputation, for images and for clips?

    python benchmarks/samus_costs.py [--flops] [--counted CLIPS,FRAMES ...] [--measured CLIPS,FRAMES ...]

`--flops`: of a forward, per frame, four classes; from shapes alone. `--counted`: peak memory of a training step in
float32 (forward, backward, AdamW on what trains, the second step), all of it: weights, gradients, the optimiser's state
and what the step holds at a time; counted by PyTorch's tracker from shapes alone, as if nothing were fragmented.
`--measured` computes the same on this machine's CPU, which takes minutes: what the process holds at most.
"""

from __future__ import annotations

import argparse
import gc
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from nnunet_echo.analysis.costs import flop_formulas
from nnunet_echo.networks import create_network
from nnunet_echo.training.memory import peak_memory_gib

SIDE, CLASSES = 256, 4
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--counted", nargs="+", default=[], metavar="CLIPS,FRAMES")
    parser.add_argument("--measured", nargs="+", default=[], metavar="CLIPS,FRAMES")
    args = parser.parse_args()
    if args.flops:
        print("| network | GFLOPs of a frame |\n|---|---:|")
        print(f"| samus | {flops('samus', 1):.1f} |")
        for temporal in ("local_mhra", "st_adapter", "attention", "none"):
            print(f"| samus_tra_lia, {temporal} | {flops('samus_tra_lia', 10, temporal=temporal):.1f} |", flush=True)
    for how, sizes in (("counted", args.counted), ("measured", args.measured)):
        if sizes:
            print(f"| clips, frames | recomputation | trains | peak, GiB, {how} | s |\n|---|---|---|---:|---:|")
        for text in sizes:
            clips, frames = (int(n) for n in text.split(","))
            for recompute, pretrained in ((True, True), (True, False), (False, True)):
                if how == "measured" and not (recompute and pretrained):
                    continue  # a process has one peak
                began = time.perf_counter()
                with FakeTensorMode() if how == "counted" else nullcontext():
                    peak = peak_of_a_step(clips, frames, recompute, pretrained, counted=how == "counted")
                what = "as SAMUS" if pretrained else "everything"
                seconds = time.perf_counter() - began
                row = [text, "yes" if recompute else "no", what, f"{peak:.2f}", f"{seconds:.0f}"]
                print(f"| {' | '.join(row)} |", flush=True)
                gc.collect()


def flops(name: str, frames: int, **options: str) -> float:
    patch = (SIDE, SIDE) if name == "samus" else (frames, SIDE, SIDE)
    with FakeTensorMode(), torch.no_grad():
        network = create_network(name, 1, CLASSES, patch, **options).eval()
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            network(torch.empty(1, 1, *patch))
    return counter.get_total_flops() / frames / 1e9


def peak_of_a_step(clips: int, frames: int, recompute: bool, pretrained: bool, counted: bool) -> float:
    patch = (frames, SIDE, SIDE)
    network = create_network("samus_tra_lia", 1, CLASSES, patch, use_checkpoint=recompute)
    network.set_trainable(pretrained)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], foreach=False)
    images, labels = torch.zeros(clips, 1, *patch), torch.zeros(clips, *patch, dtype=torch.long)
    if not counted:
        step(network, optimizer, images, labels)
        step(network, optimizer, images, labels)
        return peak_memory_gib(torch.device("cpu"))
    for module in network.modules():  # the tracker hooks the gradient of every parameter
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    tracker = MemTracker()
    tracker.track_external(network, optimizer, images, labels)
    with tracker:
        step(network, optimizer, images, labels)
        tracker.reset_mod_stats()
        step(network, optimizer, images, labels)
    return max(sum(kinds.values()) for kinds in tracker.get_tracker_snapshot("peak").values()) / 2 / GIB


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()


if __name__ == "__main__":
    main()
