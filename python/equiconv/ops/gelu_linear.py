"""``gelu_linear``: a linear layer of GELU, which keeps what GELU is given and not what it gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .check import MaybeTensor
from .pair_basis import autocasts, gradients, takes_whole_tensors
from .registration import differentiated, needed

__all__ = ["gelu_linear"]


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU(x) Wᵀ + b. Backward takes GELU of x again, one pass, instead of keeping a tensor of its size.

    Under torch.compile, torch.func and autocast, and where a derivative is differentiated again, PyTorch
    decides what is kept.

    x: (…, F), weight: (D, F), bias: (D,). Returns (…, D). Derivatives of every order are supported.
    """
    if autocasts(x) or takes_whole_tensors():
        return _plain(x, weight, bias)
    out: Tensor = _GeluLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


def _plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(F.gelu(x), weight, bias)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _plain(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[MaybeTensor, ...]:
        inputs = ctx.saved_tensors  # once: to ask for them may be to compute them again
        needs = needed(ctx, inputs)
        if differentiated(grad_out):
            return gradients(_plain, inputs, needs, grad_out)
        x, weight, _ = inputs
        rows = grad_out.flatten(0, -2)
        grad_x = torch.ops.aten.gelu_backward(grad_out @ weight, x) if needs[0] else None
        grad_weight = rows.T @ F.gelu(x).flatten(0, -2) if needs[1] else None
        return grad_x, grad_weight, rows.sum(0) if needs[2] else None
