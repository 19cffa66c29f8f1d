"""The definition of ``gate``, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ACTIVATIONS", "gate"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda u: u,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


def gate(
    x: Tensor,
    gate: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    gate_bias: Tensor | None = None,
    activation: str = "sigmoid",
    dim: int = -1,
) -> Tensor:
    """y = (x + bias) * activation(gate + gate_bias).

    x, gate: (…, D, …), D along `dim`; without a gate x holds both there, (…, 2D, …), the gate last. bias,
    gate_bias: (D,). Half types are computed in float32 and rounded once.
    """
    value, control = x.chunk(2, dim) if gate is None else (x, gate)

    def shifted(tensor: Tensor, bias: Tensor | None) -> Tensor:
        computed = tensor.to(torch.promote_types(x.dtype, torch.float32))
        if bias is None:
            return computed
        shape = [1] * tensor.dim()
        shape[dim] = -1
        return computed + bias.to(computed.dtype).view(shape)

    return (shifted(value, bias) * ACTIVATIONS[activation](shifted(control, gate_bias))).to(x.dtype)
