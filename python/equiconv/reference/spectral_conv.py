"""The definition of ``spectral_conv``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["spectral_conv"]


def spectral_conv(
    x: Tensor,
    spectrum: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    layout: str = "bdl",
) -> Tensor:
    """y = post_gate * (irfft(spectrum * rfft(u)) + skip * u), where u = pre_gate * x.

    x, gates: (B, D, L), or (B, L, D) with layout "bld"; spectrum: (D, L//2+1) or (B, D, L//2+1), real or
    complex; skip: (D,). Half types are computed in float32 and rounded once.
    """
    if x.numel() == 0:  # torch.fft takes no empty batch
        return x.clone()

    def computed(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(x.dtype, torch.float32))

    u = computed(x) if pre_gate is None else computed(pre_gate) * computed(x)
    u = u if layout == "bdl" else u.mT
    length = u.shape[-1]

    spectrum = spectrum if spectrum.is_complex() else computed(spectrum)
    y: Tensor = torch.fft.irfft(torch.fft.rfft(u) * spectrum, n=length)

    if skip is not None:
        y = y + computed(skip)[:, None] * u
    y = y if layout == "bdl" else y.mT
    if post_gate is not None:
        y = computed(post_gate) * y
    return y.to(x.dtype)
