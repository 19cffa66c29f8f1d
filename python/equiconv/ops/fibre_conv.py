"""``fibre_conv``: the convolution over orientations, at every point by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference import fibre_conv as reference
from .check import HALF, require, text

__all__ = ["fibre_conv"]


def fibre_conv(x: Tensor, basis: Tensor, weight: Tensor) -> Tensor:
    r"""Convolve features on a grid of orientations with a filter of each two of them.

    .. math:: \text{out}[n, p, d] = \frac{1}{O} \sum_o \sum_c
              \Big( \sum_k \text{basis}[o, p, k]\, \text{weight}[k, c, d] \Big)\, x[n, o, c]

    With weights (K, C) the channels are separate: c = d, and the sum over c is not there.

    Args:
        x: (N, O, C).
        basis: (O, P, K), functions of what is invariant in two orientations, the one summed over first
            (:func:`fibre_invariants`). The dtype of x.
        weight: (K, C), or (K, C, D) for channels that mix. The dtype of x.

    Returns:
        (N, P, C) or (N, P, D), of the dtype of x. Derivatives of every order are supported.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Bekkers et al., ICLR 2024, arXiv:2310.02970: the second half of its separable convolution.
    """
    require(x.dim() == 3, lambda: f"{_OP}: x must be (N, O, C), but has shape {tuple(x.shape)}")
    require(x.is_floating_point(), lambda: f"{_OP}: x must have a floating dtype, but is {text(x.dtype)}")
    orientations, channels = x.shape[1:]
    require(
        basis.dim() == 3 and basis.shape[0] == orientations,
        lambda: f"{_OP}: basis must have shape ({orientations}, P, K), but has {tuple(basis.shape)}",
    )
    functions = basis.shape[2]
    require(
        weight.dim() in (2, 3) and tuple(weight.shape[:2]) == (functions, channels),
        lambda: (
            f"{_OP}: weight must have shape ({functions}, {channels}) or ({functions}, {channels}, D), "
            f"but has {tuple(weight.shape)}"
        ),
    )
    for name, tensor in (("basis", basis), ("weight", weight)):
        require(
            tensor.dtype == x.dtype,
            lambda name=name, tensor=tensor: (  # type: ignore[misc]
                f"{_OP}: {name} must have the dtype of x, {text(x.dtype)}, but has {text(tensor.dtype)}"
            ),
        )
        require(
            tensor.device == x.device,
            lambda name=name, tensor=tensor: (  # type: ignore[misc]
                f"{_OP}: {name} must be on the device of x, {x.device}, but is on {tensor.device}"
            ),
        )
    if weight.dim() == 3 or x.dtype in HALF or x.numel() == 0:
        return reference.fibre_conv(x, basis, weight)
    # A matrix product for each channel, of matrices in one piece each: PyTorch copies others one by one.
    filter = torch.tensordot(basis, weight / orientations, 1)
    of_channels = (t.permute(2, 0, 1).contiguous() for t in (x, filter))
    return torch.bmm(*of_channels).permute(1, 2, 0).contiguous()


_OP = "fibre_conv"
