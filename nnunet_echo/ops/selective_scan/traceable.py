"""Selective scan in ordinary operations of PyTorch on all tokens at once: what PyTorch can trace, export and transform.

The fast backends are operators of their own, which PyTorch's transforms cannot look into: a trace has no form for
them, forward mode would take their tangent for zero. `wanted` says when this form is computed instead of any of them,
and the gradients of the fast backends come from here, through `gradients`, where they have to be differentiable.

The recurrence ``h[t] = a[t] h[t-1] + b[t]`` is solved by doubling (Hillis and Steele 1986): after a step of reach r a
pair (a, b) covers 2 r tokens, so that the number of operations grows with the logarithm of the number of tokens. Work
and memory are B D N L for each of them, far more than the fast backends take, and much less than `reference` has
operations. Letters as in `nnunet_echo.ops.selective_scan`; G groups of H channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from nnunet_echo.ops.selective_scan.inputs import ScanInputs
from nnunet_echo.ops.selective_scan.reference import skip_and_gate

READS_BACKWARDS = True
_operators_kept = False
_SAYS_EXPORTING = hasattr(torch.compiler, "is_exporting")  # since PyTorch 2.7


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """None: plain PyTorch runs everywhere."""
    return None


def exporting() -> bool:
    """Whether PyTorch is tracing or exporting (torch.jit.trace, torch.export, torch.onnx.export; not torch.compile)."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]  # documented, but not in its __all__
    return tracing or (_SAYS_EXPORTING and torch.compiler.is_exporting())


def wanted() -> bool:
    """Whether PyTorch is about to look into what is computed: `exporting`, torch.func's transforms, forward mode."""
    exported = exporting() and not _operators_kept
    return exported or torch._C._are_functorch_transforms_active() or in_forward_mode()


@contextmanager
def operators_kept() -> Iterator[None]:
    """Within it torch.export keeps the fast backends as operators: what runs the exported program needs this package.

    It holds for all threads of the process.
    """
    global _operators_kept
    before, _operators_kept = _operators_kept, True
    try:
        yield
    finally:
        _operators_kept = before


def checkpoints_refused() -> bool:
    """Whether layers have to do without checkpoints, whose number of parts an exporter would fix, or fail at."""
    return wanted() or exporting()


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents. Inside torch.compile that is so in torch.func.jvp only, a transform."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def refuse_forward_mode(operator: str) -> None:
    """For operators that would lose a tangent without a word, where they are called by themselves."""
    if in_forward_mode():
        raise RuntimeError(
            f"{operator} has no forward-mode derivative. Call it through nnunet_echo.ops, "
            "which computes plain PyTorch in forward mode, or set NNUNET_ECHO_SCAN=reference."
        )


def gradients(
    function: Callable[..., Tensor | Sequence[Tensor]], tensors: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients at `tensors` of ``function(*tensors)``, a plain form of what was computed, given those at its outputs.

    They are differentiable in turn where the caller is asked for that (``create_graph=True``).
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, since one tensor may come as several arguments, each with a gradient of its own.
        views = [x if x is None or not x.requires_grad else x.view_as(x) for x in tensors]
        outputs = function(*views)
    needed = [x for x in views if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(outputs, needed, grads, create_graph=create_graph, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in views]


def gradients_wanted(grads: Sequence[Tensor]) -> bool:
    """In a backward that gets `grads`: whether it has to be differentiable or vectorised, so that `gradients` is due.

    The last is ``is_grads_batched=True``, which takes no transform of torch.func but its predecessor.
    """
    return torch.is_grad_enabled() or wanted() or any(torch._C._functorch.is_legacy_batchedtensor(g) for g in grads)


def selective_scan(inputs: ScanInputs, reverse: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N). Gradients come from autograd."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    x, groups, length = u, B.shape[1], int(u.shape[-1])
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    u, delta, B, C = (turn(t, reverse) for t in (u, delta, B, C))
    step, added = (t.unflatten(1, (groups, -1)).unsqueeze(3) for t in (delta, delta * u))  # (B, G, H, 1, L)
    decay = torch.exp(step * A.unflatten(0, (groups, -1)).unsqueeze(-1))  # (B, G, H, N, L)
    h = added * B.unsqueeze(2)
    reach = 1
    while reach < length:
        later = decay[..., reach:]
        h = torch.cat((h[..., :reach], h[..., reach:] + later * h[..., :-reach]), dim=-1)
        decay = torch.cat((decay[..., :reach], later * decay[..., :-reach]), dim=-1)
        reach *= 2
    y = (h * C.unsqueeze(2)).sum(3).flatten(1, 2)
    return skip_and_gate(turn(y, reverse), x, D, z), h[..., -1:].sum(-1).flatten(1, 2)


def causal_conv_silu(u: Tensor, weight: Tensor, bias: Tensor, reverse: Sequence[bool]) -> Tensor:
    """`nnunet_echo.ops.causal_conv.causal_conv_silu` by PyTorch's convolution, with weight (D, W)."""
    groups = len(reverse)
    parts = zip(u.chunk(groups, dim=1), weight.chunk(groups), bias.chunk(groups), reverse, strict=True)
    return torch.cat([_of_one_group(*part) for part in parts], dim=1)


def _of_one_group(u: Tensor, weight: Tensor, bias: Tensor, backwards: bool) -> Tensor:
    reach = weight.shape[-1] - 1
    weight = weight.flip(-1) if backwards else weight
    u = F.conv1d(u, weight.unsqueeze(1), bias, padding=reach, groups=u.shape[1])
    return F.silu(u[..., reach:] if backwards else u[..., : u.shape[-1] - reach])


def turn(x: Tensor, reverse: Sequence[bool]) -> Tensor:
    """x (B, D, L) or (B, G, N, L) with the tokens of the groups of `reverse` from the last to the first."""
    if not any(reverse):
        return x
    groups = x.chunk(len(reverse), dim=1)
    return torch.cat([g.flip(-1) if back else g for g, back in zip(groups, reverse, strict=True)], dim=1)
