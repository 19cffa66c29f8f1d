"""The definition of ``fft_conv``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fft_conv"]


def fft_conv(
    x: Tensor,
    filter: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    """y = post_gate * (filter (*) u + skip * u), where u = pre_gate * x.

    x, gates: (B, D, L), or (B, L, D) with layout "bld"; filter: (D, Lf) or (B, D, Lf); skip: (D,).
    Half types are computed in float32 and rounded once.
    """
    if x.numel() == 0:  # torch.fft takes no empty batch
        return x.clone()

    def computed(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(x.dtype, torch.float32))

    u = computed(x) if pre_gate is None else computed(pre_gate) * computed(x)
    u = u if layout == "bdl" else u.mT
    length, taps = u.shape[-1], filter.shape[-1]

    # Circular: one period. Else: the full linear convolution, of which a window of length L is kept.
    n = length if mode == "circular" else length + taps - 1
    start = (taps - 1) // 2 if mode == "bidirectional" else 0
    spectrum = torch.fft.rfft(u, n=n) * torch.fft.rfft(computed(filter), n=n)
    y: Tensor = torch.fft.irfft(spectrum, n=n)[..., start : start + length]

    if skip is not None:
        y = y + computed(skip)[:, None] * u
    y = y if layout == "bdl" else y.mT
    if post_gate is not None:
        y = computed(post_gate) * y
    return y.to(x.dtype)
