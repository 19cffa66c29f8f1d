"""``spectral_conv``: gated circular convolution with a filter given by its spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from .check import HALF, check_device, check_rows, check_signal, check_skip, check_x, one_of, require, text
from .fft_conv import fft_conv
from .multilinear import under_autocast

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
    r"""Circular convolution of every channel of `x` with the filter whose half spectrum is given.

    .. math:: y = \text{post\_gate} \odot (\mathrm{irfft}(\text{spectrum} \cdot \mathrm{rfft}(u)) +
              \text{skip} \odot u), \qquad u = \text{pre\_gate} \odot x

    Args:
        x: (B, D, L), or (B, L, D) with ``layout="bld"``. float32, float64, bfloat16 or float16; L up to
            2**30, on CUDA up to 2**22 and B D up to 2**31.
        spectrum: (D, L//2+1), shared by the batch, or (B, D, L//2+1), one for each sample, in both layouts.
            Beside float64 x complex128 or float64, else complex64, float32 or a half type. A real spectrum
            is a filter symmetric about lag 0. As in ``torch.fft.irfft``, the imaginary parts at frequency 0
            and, for even L, at L/2 are not read.
        pre_gate, post_gate: shape and dtype of x. Absent: 1.
        skip: (D,), of the dtype of x, or float32 beside a half type. Absent: 0.
        layout: "bdl" or "bld".

    Returns:
        Shape and dtype of x, contiguous. Half types are computed in float32 and rounded once.

    Today this is ``fft_conv(x, torch.fft.irfft(spectrum, n=L), mode="circular", …)``: the filter exists in
    memory, (D, L) or (B, D, L), and is transformed back; and its bits are those of torch.fft, which may
    change with the number of threads. Derivatives, compilation, torch.func and autocast work as for
    :func:`fft_conv`.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Data-dependent spectra are those of Orchid (Karami and Ghodsi, 2024, arXiv:2402.18508).
    """
    x, pre_gate, post_gate = under_autocast(x), under_autocast(pre_gate), under_autocast(post_gate)
    skip = under_autocast(skip, weight=True)
    batch, channels, length = check_x(_OP, x, layout)
    _check_spectrum(spectrum, x, batch, channels, length)
    check_signal(_OP, "pre_gate", pre_gate, x)
    check_signal(_OP, "post_gate", post_gate, x)
    check_skip(_OP, skip, x, channels)
    return fft_conv(
        x,
        _filter(spectrum, length),
        pre_gate=pre_gate,
        post_gate=post_gate,
        skip=skip,
        mode="circular",
        layout=layout,
    )


_OP = "spectral_conv"


def _filter(spectrum: Tensor, length: int) -> Tensor:
    if spectrum.numel() == 0 or length == 0:  # torch.fft takes neither
        return spectrum.real[..., :1].expand(*spectrum.shape[:-1], length)
    if not spectrum.is_complex():
        spectrum = spectrum.to(torch.promote_types(spectrum.dtype, torch.float32))
    filter: Tensor = torch.fft.irfft(spectrum, n=length)
    return filter


def _check_spectrum(spectrum: Tensor, x: Tensor, batch: int, channels: int, length: int) -> None:
    require(
        spectrum.dim() in (2, 3),
        lambda: (
            f"{_OP}: spectrum must be (D, L//2+1) or (B, D, L//2+1), but has shape {tuple(spectrum.shape)}"
        ),
    )
    wide = x.dtype == torch.float64
    allowed = (torch.complex128, torch.float64) if wide else (torch.complex64, torch.float32, *HALF)
    require(
        spectrum.dtype in allowed,
        lambda: (
            f"{_OP}: spectrum must be {one_of([text(dtype) for dtype in allowed])} "
            f"beside {text(x.dtype)} x, but is {text(spectrum.dtype)}"
        ),
    )
    check_device(_OP, "spectrum", spectrum, x)
    check_rows(_OP, "spectrum", spectrum, batch, channels)
    require(
        spectrum.shape[-1] == length // 2 + 1,
        lambda: (
            f"{_OP}: spectrum must have {length // 2 + 1} frequencies where the length of x is {length}, "
            f"but has {spectrum.shape[-1]}"
        ),
    )
