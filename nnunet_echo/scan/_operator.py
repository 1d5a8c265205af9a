"""What the backends that are custom operators of PyTorch share: `scan(inputs)` is y, last state, and what to keep."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.library import CustomOpDef

INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus, bool[] reverse"
)


def register_gradients(scan: CustomOpDef, backward: Callable[..., list[Tensor]]) -> None:
    """Let ``backward(*inputs, kept, grad_y, grad_last)`` give one gradient for each tensor of the inputs."""

    def keep(ctx, inputs, output) -> None:
        *tensors, ctx.softplus, ctx.reverse = inputs
        ctx.save_for_backward(*tensors, output[2])

    def gradients(ctx, grad_y, grad_last, _):
        *tensors, kept = ctx.saved_tensors
        found = backward(*tensors, ctx.softplus, ctx.reverse, kept, grad_y, grad_last)
        return *(None if x is None else g for x, g in zip(tensors, found, strict=True)), None, None

    scan.register_autograd(gradients, setup_context=keep)
