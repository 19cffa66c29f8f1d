"""The definition of ``nn.Orchid``, in plain PyTorch: torch.fft and torch's depthwise convolutions.

It has the parameters of ``nn.Orchid``, whose states it loads, and is what that is measured against: the
layout (B, D, L) in between, one transform for each signal, and no loop over taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn import ImplicitFilter, ShortConv
from ..nn import Orchid as Parameters
from .implicit_filter import implicit_filter

__all__ = ["Orchid"]


class Orchid(Parameters):
    """See ``nn.Orchid``."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, D). Returns the shape of x."""
        y = self.mix(self.in_linear(x))
        if self.residual is not None:
            residual, length = self.residual, x.shape[1]
            assert residual.filter is not None
            assert residual.skip is not None
            spectrum = torch.fft.rfft(taps(residual.filter, length), n=length)
            y = y + torch.fft.irfft(spectrum * torch.fft.rfft(x.mT), n=length).mT + residual.skip * x
        out: Tensor = self.out_linear(y)
        return out

    def mix(self, z: Tensor) -> Tensor:
        """What is between the projections: z, (B, L, 3D), to y, (B, L, D)."""
        length, channels = z.shape[1], z.shape[2] // 3
        z = z.mT
        short = self.short_conv
        x0, x1, v = short_conv(z, short.filter, short.bias, short.mode).chunk(3, 1)
        u = x1 * v
        spectrum = torch.zeros((), device=z.device)
        if self.query is not None:
            w = z[:, 2 * channels :]
            spectrum = torch.fft.rfft(condition(self.query, w))
            if self.key is None:
                spectrum = spectrum.abs()
            else:
                spectrum = torch.fft.rfft(condition(self.key, w)).conj() * spectrum
            filter = self.frequency_filter * length ** (-0.5 if self.key is None else -1.0)
            spectrum = frequency_conv(spectrum, filter, self.frequency_bias, length)
        if self.filter is not None:
            spectrum = spectrum + torch.fft.rfft(taps(self.filter, length), n=length)
        y = torch.fft.irfft(spectrum * torch.fft.rfft(u), n=length) + self.skip[:, None] * u
        mixed: Tensor = (x0 * y).mT
        return mixed


def taps(filter: nn.Module, length: int) -> Tensor:
    made: Tensor = (
        implicit_filter(*filter.network(length)) if isinstance(filter, ImplicitFilter) else filter(length)
    )
    return made


def condition(network: nn.Module, w: Tensor) -> Tensor:
    conv = network[0] if isinstance(network, nn.Sequential) else network
    assert isinstance(conv, ShortConv)
    y = short_conv(w, conv.filter, conv.bias, conv.mode)
    if isinstance(network, nn.Sequential):
        y = network[1](y.mT).mT
    return y


def short_conv(x: Tensor, filter: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """x: (B, D, L); filter: (D, W), tap j at lag j, or "centered" at lag j - W // 2."""
    taps = filter.shape[-1]
    after = taps // 2 if "centered" in mode else 0
    sides = taps - 1 - after, after
    if "circular" in mode:
        length = x.shape[-1]
        place = torch.arange(-sides[0], length + sides[1], device=x.device) % length
        padded = x[..., place] if taps > length else F.pad(x, sides, mode="circular")
    else:
        padded = F.pad(x, sides)
    return F.conv1d(padded, filter.flip(-1)[:, None], bias, groups=len(filter))


def frequency_conv(spectrum: Tensor, filter: Tensor, bias: Tensor, length: int) -> Tensor:
    """The half spectrum (B, D, L//2+1), continued as that of a real signal, convolved with filter, (D, W)."""
    taps, half = filter.shape[-1], length // 2
    place = torch.arange(taps // 2 - taps + 1, half + 1 + taps // 2, device=spectrum.device) % length
    mirrored = place > half
    place = torch.minimum(place, length - place)
    weight = filter.flip(-1)[:, None]

    def conv(part: Tensor) -> Tensor:
        return F.conv1d(part, weight, bias, groups=len(filter))

    if not spectrum.is_complex():
        return conv(spectrum[..., place])
    imaginary = torch.where(mirrored, -1.0, 1.0).to(filter.dtype) * spectrum.imag[..., place]
    return torch.complex(conv(spectrum.real[..., place]), conv(imaginary))
