"""What the backends that are custom operators of PyTorch share: `scan(inputs)` is y, last state, and what to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from nnunet_echo.ops.selective_scan import traceable
from nnunet_echo.ops.selective_scan.inputs import ScanInputs

if TYPE_CHECKING:
    from torch._library.custom_ops import CustomOpDef

INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus, bool[] reverse"
)


# Of one token, channel and state, as `torch.utils.flop_counter` counts. Forward: the exponent and its exponential, the
# update (four), C h. The backward computes the states again.
_FLOPS_FORWARD, _FLOPS_BACKWARD = 7, 20


def register_gradients(scan: CustomOpDef, backward: CustomOpDef) -> None:
    """Let ``backward(*inputs, kept, grad_y, grad_last)`` give one gradient for each tensor of the inputs; where those
    are to be differentiated again, `traceable` gives them."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.softplus, ctx.reverse = inputs
        ctx.save_for_backward(*tensors, output[2])

    def gradients(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, kept = ctx.saved_tensors
        if traceable.gradients_wanted((grad_y, grad_last)):

            def plain(*tensors: Tensor | None) -> tuple[Tensor, Tensor]:
                return traceable.selective_scan(ScanInputs._make((*tensors, ctx.softplus)), ctx.reverse)

            return *traceable.gradients(plain, tensors, (grad_y, grad_last)), None, None
        found = backward(*tensors, ctx.softplus, ctx.reverse, kept, grad_y, grad_last)
        return *(None if x is None else g for x, g in zip(tensors, found, strict=True)), None, None

    scan.register_autograd(gradients, setup_context=keep)
    for operator, flops in ((scan, _FLOPS_FORWARD), (backward, _FLOPS_BACKWARD)):
        register_flop_formula(operator._opoverload.overloadpacket)(partial(_count, flops))


def _count(flops: int, u: Sequence[int], delta: Sequence[int], A: Sequence[int], *others: Any, **options: Any) -> int:
    return flops * math.prod(u) * A[1]
