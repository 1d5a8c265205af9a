"""Which network? Writes the tables of docs/reference/networks.md, a row for each of `NETWORKS`.

    python benchmarks/network_table.py            # parameters, FLOPs and memory, counted from shapes
    python benchmarks/network_table.py --timed    # time and memory of a CPU too, all in this one run

One channel, four classes, one image. The plans are nnU-Net's own: of 256 x 256 with 7 stages, and of CAMUS, 512 x 640
with 8; networks that take no shape from a plan are the same in both. Volumes are of 64 x 128 x 128 voxels, with 6
stages of 32 to 320 features. Ratios are to nnU-Net's plain U-Net.
Parameters, FLOPs of a forward (a multiply-add is two) and what autograd keeps between forward and backward under 16 bit
autocast, weights left out, are counted, with all outputs of deep supervision. `--timed` measures 256 x 256 as
`networks.py` does, in turns with the plain U-Net; on an idle machine only. What is not measured is not in the table.
`--print` writes to the terminal instead.
"""

from __future__ import annotations

import argparse
import io
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from networks import PLAIN, RESIDUAL, Case, build, check, in_a_fresh_process, kept_gib, measure
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from nnunet_echo._startup import register_trainers
from nnunet_echo.analysis.costs import flop_formulas
from nnunet_echo.networks import NETWORKS, list_networks, published
from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "networks.md"
BEGIN, END = "<!-- written by benchmarks/network_table.py -->", "<!-- end of what it writes -->"
PLANS = {"256 x 256": ((256, 256), 7), "CAMUS's plan": ((512, 640), 8)}
VOLUME = {"64 x 128 x 128": ((64, 128, 128), 6)}
SUBJECTS = (PLAIN, RESIDUAL, *list_networks(dims=2))
SUBJECTS_3D = (PLAIN, RESIDUAL, *list_networks(dims=3))


@dataclass(frozen=True)
class Counted:
    parameters: int
    flops: int
    kept_gib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--print", action="store_true", dest="show")
    args = parser.parse_args()
    counts = {plan: {name: count(case(name, plan)) for name in SUBJECTS} for plan in PLANS}
    volumes = {plan: {name: count(case(name, plan)) for name in SUBJECTS_3D} for plan in VOLUME}
    tables = costs_table(counts, args.repetitions if args.timed else 0), costs_table(volumes, 0), facts_table()
    text = "\n".join(tables)
    if args.show:
        print(text)
    else:
        PAGE.write_text(replaced(PAGE.read_text(), text))


def case(network: str, plan: str, repetitions: int = 0) -> Case:
    size, stages = {**PLANS, **VOLUME}[plan]
    return Case(network, size, 1, stages, torch.device("cpu"), repetitions, token_loop=False, keep_memory=True)


def count(case: Case) -> Counted:
    """In a process of its own: what counts memory changes how the package computes."""
    return in_a_fresh_process(counted, case)


def counted(case: Case) -> Counted:
    network = build(case)
    parameters = sum(p.numel() for p in network.parameters())
    tensors = [*network.named_parameters(), *network.named_buffers()]
    # One backend on every machine, whose operators have formulas, as in nnunet_echo.analysis.costs.
    with patch.dict(os.environ, {BACKEND_VARIABLE: "cpu"}), FakeTensorMode() as mode, torch.no_grad():
        weights = {name: mode.from_tensor(tensor) for name, tensor in tensors}
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            torch.func.functional_call(network, weights, (torch.empty(1, 1, *case.size),))
    return Counted(parameters, counter.get_total_flops(), kept_gib(case))


def costs_table(counts: dict[str, dict[str, Counted]], repetitions: int) -> str:
    """A line for each network and, per plan, its costs; with `repetitions` also those that are measured."""
    columns = ["network"]
    for plan in counts:
        columns += [f"{plan}: M parameters", "GFLOPs", "ratio", "memory kept, ratio"]
    columns += ["256 x 256: CPU time of a step, ratio", "peak memory, ratio"] * (repetitions > 0)
    lines = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    plain_peak = 0.0
    for name in next(iter(counts.values())):
        cells = [title(name)]
        for of_plan in counts.values():
            ours, plain = of_plan[name], of_plan[PLAIN]
            cells += [f"{ours.parameters / 1e6:.1f}", f"{ours.flops / 1e9:.1f}", f"{ours.flops / plain.flops:.2f}"]
            cells.append(f"{ours.kept_gib / plain.kept_gib:.2f}")
        if repetitions:
            timed = case(name, "256 x 256", repetitions)
            in_a_fresh_process(check, timed)
            costs = in_a_fresh_process(measure, timed)
            plain_peak = plain_peak or costs.peak_gib  # the plain U-Net comes first
            cells += [f"{costs.step_ratio:.2f}", f"{costs.peak_gib / plain_peak:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def facts_table() -> str:
    """What each network computes, by whose code and licence, how it is trained, and what it can start from."""
    columns = (
        "network",
        "axes",
        "computes",
        "code, licence",
        "trained with",
        "pretrained by `load_pretrained`",
        "known to `from_upstream`",
    )
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for name, row in NETWORKS.items():
        code = f"[{row.code}](https://github.com/{row.code}), {row.licence}"
        loads = "yes" if name in published._BUILDERS else "no"
        paper = f"[{row.paper}](https://arxiv.org/abs/{row.paper})"
        axes = " and ".join(f"{n}D" for n in row.dims)
        trained, weights = training_of(row.trainer), row.pretrained or "none"
        cells = f"{title(name)}, {paper}", axes, row.follows, code, trained, weights, loads
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def training_of(trainer: str) -> str:
    """Optimiser, learning rate and schedule, weight decay, and deep supervision, as the trainer has them."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    register_trainers()
    with redirect_stdout(io.StringIO()):  # nnU-Net prints each place where it looks
        found = recursive_find_trainer_class_by_name(trainer)
    stub = found.__new__(found)  # all that its `configure_optimizers` needs
    stub.network, stub.num_epochs = torch.nn.Linear(1, 1), found.num_epochs
    stub.initial_lr, stub.weight_decay = found.initial_lr, found.weight_decay
    optimiser = type(stub.configure_optimizers()[0]).__name__
    supervised = "deep supervision" if found.enable_deep_supervision else "one output"
    return f"{optimiser} {found.initial_lr:g}, {found.schedule}, weight decay {found.weight_decay:g}, {supervised}"


def title(name: str) -> str:
    if name not in NETWORKS:
        return name
    return f"`{name}`" + (" (unofficial reconstruction)" if "unofficial" in NETWORKS[name].title else "")


def replaced(page: str, text: str) -> str:
    """The page with `text` between its marks. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name}: expected {BEGIN} and {END}, between which the tables stand.")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


if __name__ == "__main__":
    main()
