"""The definition of ``orchid_mix``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .conditioned_conv import conditioned_conv
from .short_conv import short_conv

__all__ = ["orchid_mix"]


def orchid_mix(
    z: Tensor,
    short_filter: Tensor,
    query_filter: Tensor,
    key_filter: Tensor | None = None,
    *,
    frequency_filter: Tensor,
    short_bias: Tensor | None = None,
    query_bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    frequency_bias: Tensor | None = None,
    filter: Tensor | None = None,
    skip: Tensor | None = None,
    padding: str = "circular",
    layout: str = "bld",
) -> Tensor:
    """conditioned_conv(v, query, key, pre_gate=x1, post_gate=x0), where x0, x1, v are the thirds of
    short_conv(z), and query and key are short_conv of z's last third.

    z: (B, L, 3D), or (B, 3D, L) with layout "bdl"; short_filter: (3D, W); query_filter, key_filter: (D, W).
    Half types are computed in float32 and rounded once.
    """
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    streams, condition = (
        ("circular", "circular_centered") if padding == "circular" else ("causal", "centered")
    )
    axis = 1 if layout == "bdl" else 2
    x0, x1, v = short_conv(wide, short_filter, bias=short_bias, mode=streams, layout=layout).chunk(3, axis)
    w = wide.chunk(3, axis)[2]
    y = conditioned_conv(
        v,
        short_conv(w, query_filter, bias=query_bias, mode=condition, layout=layout),
        None
        if key_filter is None
        else short_conv(w, key_filter, bias=key_bias, mode=condition, layout=layout),
        frequency_filter=frequency_filter,
        frequency_bias=frequency_bias,
        filter=filter,
        pre_gate=x1,
        post_gate=x0,
        skip=skip,
        layout=layout,
    )
    return y.to(z.dtype)
