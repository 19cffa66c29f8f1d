"""The definition of ``conditioned_conv``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["conditioned_conv", "frequency_conv"]


def conditioned_conv(
    x: Tensor,
    query: Tensor,
    key: Tensor | None = None,
    *,
    frequency_filter: Tensor,
    frequency_bias: Tensor | None = None,
    filter: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    layout: str = "bdl",
) -> Tensor:
    """y = post_gate * (irfft((H + rfft(filter, L)) * rfft(u)) + skip * u), where u = pre_gate * x and H is
    the frequency_conv of |rfft(query)|, or with a key, of conj(rfft(key)) * rfft(query).

    x, query, key, gates: (B, D, L), or (B, L, D) with layout "bld"; frequency_filter: (D, W);
    filter: (D, Lf); frequency_bias, skip: (D,). Half types are computed in float32 and rounded once.
    """
    if x.numel() == 0:  # torch.fft takes no empty batch
        return x.clone()

    def computed(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(x.dtype, torch.float32))

    def rows(tensor: Tensor) -> Tensor:
        return computed(tensor) if layout == "bdl" else computed(tensor).mT

    u = rows(x) if pre_gate is None else rows(pre_gate) * rows(x)
    length = u.shape[-1]

    spectrum = torch.fft.rfft(rows(query))
    spectrum = spectrum.abs() if key is None else torch.fft.rfft(rows(key)).conj() * spectrum
    bias = None if frequency_bias is None else computed(frequency_bias)
    spectrum = frequency_conv(spectrum, computed(frequency_filter), bias, length)
    if filter is not None:
        spectrum = spectrum + torch.fft.rfft(computed(filter), n=length)

    y: Tensor = torch.fft.irfft(torch.fft.rfft(u) * spectrum, n=length)
    if skip is not None:
        y = y + computed(skip)[:, None] * u
    if post_gate is not None:
        y = rows(post_gate) * y
    return (y if layout == "bdl" else y.mT).to(x.dtype)


def frequency_conv(spectrum: Tensor, filter: Tensor, bias: Tensor | None, length: int) -> Tensor:
    """out[k] = bias + sum over j of filter[j] * spectrum[k - j + W//2], k = 0 … L//2, where the half spectrum
    (…, D, L//2+1) is continued as that of a real signal: spectrum[-k] = conj(spectrum[k]), period L.

    filter: (D, W) and bias: (D,), both real; the bias of a complex spectrum is bias + i bias.
    """
    half, taps = length // 2, filter.shape[-1]
    place = torch.arange(taps // 2 + 1 - taps, half + taps // 2 + 1, device=spectrum.device) % length
    continued = spectrum[..., torch.minimum(place, length - place)]
    if spectrum.is_complex():
        continued = torch.where(place > half, continued.conj(), continued)
    out = torch.zeros_like(spectrum)
    for j in range(taps):
        first = taps - 1 - j
        out = out + filter[:, j, None] * continued[..., first : first + half + 1]
    if bias is not None:
        out = out + (torch.complex(bias, bias) if spectrum.is_complex() else bias)[:, None]
    return out
