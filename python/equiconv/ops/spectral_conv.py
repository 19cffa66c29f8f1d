"""``spectral_conv``: gated circular convolution with a filter given by its spectrum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .check import (
    HALF,
    LAYOUTS,
    MODES,
    MaybeTensor,
    check_device,
    check_rows,
    check_signal,
    check_skip,
    check_x,
    name_of,
    number_of,
    one_of,
    require,
    text,
)
from .multilinear import MultilinearOp, Tensors

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

    On a CPU neither filter nor spectra of x ever exist in memory. The fastest lengths are multiples of 512
    with no prime factor above 7; others with no such factor come next; any other takes three to five times
    as long. Derivatives, compilation, torch.func, autocast, strides and bits are as for :func:`fft_conv`.

    On CUDA lengths that are powers of two, from 64, or of "bld" from 4096, to 8192 (float64: to 4096; half of
    it where a block has less shared memory than an A100's), are one pass over each row forward and one
    backward, and a sum over the batch of what is shared by it. At every other length this is ``fft_conv``
    there, with the filter ``torch.fft.irfft(spectrum, n=L)``, which exists in memory.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Data-dependent spectra are those of Orchid (Karami and Ghodsi, 2024, arXiv:2402.18508).
    """
    y: Tensor = torch.ops.equiconv.spectral_conv(
        x, spectrum, pre_gate, post_gate, skip, number_of(_OP, "layout", layout, LAYOUTS)
    )
    return y


_OP = "spectral_conv"


# ---- the dispatcher ops: fake kernels, and what is generic over multilinear ops --------------------------


def _check(
    x: Tensor,
    spectrum: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
) -> None:
    batch, channels, length = check_x(_OP, x, name_of(_OP, "layout", layout, LAYOUTS))
    _check_spectrum(spectrum, x, batch, channels, length)
    check_signal(_OP, "pre_gate", pre_gate, x)
    check_signal(_OP, "post_gate", post_gate, x)
    check_skip(_OP, skip, x, channels)


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


def _fake(
    x: Tensor,
    spectrum: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
) -> Tensor:
    _check(x, spectrum, pre_gate, post_gate, skip, layout)
    return x.new_empty(x.shape)


def _fake_backward(
    grad_out: Tensor,
    x: Tensor,
    spectrum: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    _check(x, spectrum, pre_gate, post_gate, skip, layout)
    check_signal(_OP, "grad_out", grad_out, x)
    return tuple(
        argument.new_empty(argument.shape) if need and argument is not None else x.new_empty(0)
        for argument, need in zip((x, spectrum, pre_gate, post_gate, skip), needs, strict=True)
    )


def _zero(i: int, tensors: Tensors) -> MaybeTensor:
    """Of the group (spectrum, skip): a spectrum of zeros, and no skip at all."""
    spectrum = tensors[1]
    if i == 4 or spectrum is None:
        return None
    return spectrum.new_zeros(spectrum.shape[-2:])


def _channel_axes(layout: int) -> tuple[int, ...]:
    signal = -2 if layout == LAYOUTS["bdl"] else -1
    return signal, -2, signal, signal, -1


_op = MultilinearOp(
    name=_OP,
    arguments=("x", "spectrum", "pre_gate", "post_gate", "skip"),
    groups=((0,), (1, 4), (2,), (3,)),
    zero=_zero,
    channel_axes=_channel_axes,
    weights=(1, 4),
)
_op.register(_fake, _fake_backward)


# ---- CUDA: kernels for some lengths, else with the filter in memory ----------------------------------------


def _on_cuda(*args: Any) -> Tensor:
    ops = torch.ops.equiconv
    fuses = ops.spectral_conv_fuses(args[0], args[5])
    y: Tensor = (ops.spectral_conv_fused if fuses else _through_filter)(*args)
    return y


def _on_cuda_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    ops = torch.ops.equiconv
    fuses = ops.spectral_conv_fuses(args[0], args[5])
    backward = ops.spectral_conv_fused_backward if fuses else _through_filter_backward
    return tuple(backward(grad_out, *args))


def _through_filter(
    x: Tensor,
    spectrum: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
) -> Tensor:
    _check(x, spectrum, pre_gate, post_gate, skip, layout)
    filter = _filter(spectrum, _length(x, layout))
    y: Tensor = torch.ops.equiconv.fft_conv(x, filter, pre_gate, post_gate, skip, MODES["circular"], layout)
    return y


def _through_filter_backward(
    grad_out: Tensor,
    x: Tensor,
    spectrum: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    _check(x, spectrum, pre_gate, post_gate, skip, layout)
    check_signal(_OP, "grad_out", grad_out, x)
    filter = _filter(spectrum, _length(x, layout))
    grad_x, grad_filter, *others = torch.ops.equiconv.fft_conv_backward(
        grad_out, x, filter, pre_gate, post_gate, skip, MODES["circular"], layout, *needs
    )
    grad_spectrum = _adjoint_of_filter(grad_filter, spectrum) if needs[1] else grad_filter
    return grad_x, grad_spectrum, *others


def _length(x: Tensor, layout: int) -> int:
    return x.shape[2 if layout == LAYOUTS["bdl"] else 1]


def _filter(spectrum: Tensor, length: int) -> Tensor:
    if spectrum.numel() == 0 or length == 0:  # torch.fft takes neither
        return spectrum.real[..., :1].expand(*spectrum.shape[:-1], length)
    if not spectrum.is_complex():
        spectrum = spectrum.to(torch.promote_types(spectrum.dtype, torch.float32))
    filter: Tensor = torch.fft.irfft(spectrum, n=length)
    return filter


def _adjoint_of_filter(grad_filter: Tensor, spectrum: Tensor) -> Tensor:
    if grad_filter.numel() == 0:
        return torch.zeros_like(spectrum)
    length = grad_filter.shape[-1]
    grad_spectrum: Tensor = torch.fft.rfft(grad_filter) * (2 / length)  # inner frequencies stand for two
    grad_spectrum[..., :: length // 2 if length % 2 == 0 else length] /= 2
    if not spectrum.is_complex():
        grad_spectrum = grad_spectrum.real
    return grad_spectrum.to(spectrum.dtype)


if torch._C._dispatch_has_kernel_for_dispatch_key("equiconv::fft_conv", "CUDA"):
    torch.library.impl(_op.forward.name(), "CUDA", _on_cuda)
    torch.library.impl(_op.backward.name(), "CUDA", _on_cuda_backward)
