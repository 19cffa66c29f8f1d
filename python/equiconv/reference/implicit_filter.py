"""The definition of ``implicit_filter``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

__all__ = ["implicit_filter"]


def implicit_filter(
    features: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    output_weight: Tensor,
    rates: Tensor,
) -> Tensor:
    """filter[d, i] = exp(-t_i rates[d]) (output_weight h_i)[d], t = features[:, 0], where h_i is what sines
    of linear layers make of features[i]: the first layer, then those of inner_weight and inner_bias.

    features: (L, E), first_weight: (H, E), first_bias: (H,), inner_weight: (M, H, H), inner_bias: (M, H),
    output_weight: (D, H), rates: (D,). Returns (D, L). Half types are computed in float32 and rounded once.
    """
    dtype = features.dtype
    wide = torch.promote_types(dtype, torch.float32)
    z = features.to(wide)
    h = torch.sin(linear(z, first_weight.to(wide), first_bias.to(wide)))
    for weight, bias in zip(inner_weight.to(wide).unbind(), inner_bias.to(wide).unbind(), strict=True):
        h = torch.sin(linear(h, weight, bias))
    window = torch.exp(-z[:, :1] * rates.to(wide))
    return (linear(h, output_weight.to(wide)) * window).mT.to(dtype)
