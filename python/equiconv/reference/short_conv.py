"""The definition of ``short_conv`` and its other forms, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["short_conv", "short_conv_gated", "short_conv_step"]


def short_conv(
    x: Tensor,
    filter: Tensor,
    *,
    bias: Tensor | None = None,
    activation: str | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    """y = activation(filter (*) x + bias), each of x's channels with its own W taps.

    x: (B, D, L), or (B, L, D) with layout "bld", real or complex; filter: (D, W); bias: (D,). Half types are
    computed in float32 and rounded once. Complex: real and imaginary parts apart.
    """
    if x.is_complex():
        parts = (
            short_conv(part, filter, bias=bias, activation=activation, mode=mode, layout=layout)
            for part in (x.real, x.imag)
        )
        return torch.complex(*parts)
    wide = torch.promote_types(x.dtype, torch.float32)
    u = x.to(wide) if layout == "bdl" else x.to(wide).mT
    length, taps = u.shape[-1], filter.shape[-1]
    ahead = taps // 2 if "centered" in mode else 0

    y = u.new_zeros(u.shape) if bias is None else bias.to(wide)[:, None].expand(u.shape)
    padded = functional.pad(u, (taps, taps))
    for j in range(taps):
        lag = j - ahead
        if "circular" in mode:
            shifted = torch.roll(u, lag, -1)
        else:
            shifted = padded[..., taps - lag : taps - lag + length]
        y = y + filter[:, j, None].to(wide) * shifted

    if activation is not None:
        y = functional.silu(y) if activation == "silu" else functional.gelu(y)
    y = y if layout == "bdl" else y.mT
    return y.to(x.dtype)


def short_conv_gated(
    z: Tensor, filter: Tensor, *, bias: Tensor | None = None, mode: str = "causal", layout: str = "bld"
) -> tuple[Tensor, Tensor]:
    """(x0, x1 * v), where x0, x1, v are the thirds of the short convolution of z.

    z: (B, L, 3D), or (B, 3D, L) with layout "bdl"; filter: (3D, W); bias: (3D,).
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    s = short_conv(z.to(wide), filter, bias=bias, mode=mode, layout=layout)
    x0, x1, v = s.chunk(3, -2 if layout == "bdl" else -1)
    return x0.to(z.dtype), (x1 * v).to(z.dtype)


def short_conv_step(
    x: Tensor, state: Tensor, filter: Tensor, *, bias: Tensor | None = None, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """The causal short convolution at one more position, x: (B, D), after those in state: (B, D, W-1)."""
    window = torch.cat([state, x[..., None]], -1)
    y = short_conv(window, filter, bias=bias, activation=activation)
    return y[..., -1], window[..., 1:]
