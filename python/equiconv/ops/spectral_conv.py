"""``spectral_conv``: gated circular convolution with a filter given by its spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from .fft_conv import check_signal, check_skip, check_weight_shape, check_x, fft_conv

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
        x: (B, D, L), or (B, L, D) with ``layout="bld"``. float32, float64, bfloat16 or float16; any length.
        spectrum: (D, L//2+1), shared by the batch, or (B, D, L//2+1), one for each sample, in both layouts.
            complex64 or float32 (float64 x: complex128 or float64), or the half type of x. A real spectrum
            is a filter symmetric about lag 0. As in ``torch.fft.irfft``, the imaginary parts at frequency 0
            and, for even L, at L/2 are not read.
        pre_gate, post_gate: shape and dtype of x. Absent: 1.
        skip: (D,), of the dtype of x, or float32 beside a half type. Absent: 0.
        layout: "bdl" or "bld".

    Returns:
        Shape and dtype of x, contiguous. Half types are computed in float32 and rounded once.

    Today this is ``fft_conv(x, torch.fft.irfft(spectrum, n=L), mode="circular", …)``: the filter exists in
    memory, (D, L) or (B, D, L), and is transformed back. Derivatives, compilation, torch.func and autocast
    work as for :func:`fft_conv`.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Data-dependent spectra are those of Orchid (Karami and Ghodsi, 2024, arXiv:2402.18508).
    """
    length = _check(x, spectrum, pre_gate, post_gate, skip, layout)
    return fft_conv(
        x,
        _filter(spectrum, length),
        pre_gate=pre_gate,
        post_gate=post_gate,
        skip=skip,
        mode="circular",
        layout=layout,
    )


def _filter(spectrum: Tensor, length: int) -> Tensor:
    if not spectrum.is_complex():
        spectrum = spectrum.to(torch.promote_types(spectrum.dtype, torch.float32))
    return torch.fft.irfft(spectrum, n=max(length, 1))[..., :length]


def _check(
    x: Tensor,
    spectrum: Tensor,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    skip: Tensor | None,
    layout: str,
) -> int:
    op = "spectral_conv"
    batch, channels, length = check_x(op, x, layout)
    if spectrum.dim() not in (2, 3):
        raise ValueError(
            f"{op}: spectrum must be (D, L//2+1) or (B, D, L//2+1), but has shape {tuple(spectrum.shape)}"
        )
    check_weight_shape(op, "spectrum", spectrum, batch, channels)
    if spectrum.shape[-1] != length // 2 + 1:
        raise ValueError(
            f"{op}: spectrum must have L//2+1 = {length // 2 + 1} frequencies where the length of x is "
            f"{length}, but has {spectrum.shape[-1]}"
        )
    _check_spectrum_kind(op, spectrum, x)
    check_signal(op, "pre_gate", pre_gate, x)
    check_signal(op, "post_gate", post_gate, x)
    check_skip(op, skip, x, channels)
    return length


def _check_spectrum_kind(op: str, spectrum: Tensor, x: Tensor) -> None:
    if x.dtype == torch.float64:
        dtypes = [torch.complex128, torch.float64]
    else:
        dtypes = [torch.complex64, torch.float32]
        if x.dtype != torch.float32:
            dtypes.append(x.dtype)
    if spectrum.dtype not in dtypes:
        *first, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
        have, beside = (str(dtype).removeprefix("torch.") for dtype in (spectrum.dtype, x.dtype))
        raise ValueError(f"{op}: spectrum must be {', '.join(first)} or {last} beside {beside} x, but is {have}")
    if spectrum.device != x.device:
        raise ValueError(f"{op}: spectrum must be on the device of x, {x.device}, but is on {spectrum.device}")
