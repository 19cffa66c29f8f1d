"""``fft_conv``: gated long convolution, with a filter shared by the batch or made for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from .check import (
    LAYOUTS,
    MODES,
    MaybeTensor,
    check_kind,
    check_rows,
    check_signal,
    check_skip,
    check_x,
    name_of,
    number_of,
    require,
)
from .multilinear import MultilinearOp, Tensors

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
    r"""Convolve every channel of `x` with its filter, gates and skip connection fused in.

    .. math:: y = \text{post\_gate} \odot (\text{filter} * u + \text{skip} \odot u),
              \qquad u = \text{pre\_gate} \odot x

    with, for taps j = 0 … Lf - 1,

    - ``mode="causal"``: (filter * u)[t] = Σ_j filter[j] u[t - j];
    - ``mode="bidirectional"``: (filter * u)[t] = Σ_j filter[j] u[t - j + (Lf - 1) // 2], as
      ``numpy.convolve(mode="same")``; u is zero outside 0 … L - 1 in both;
    - ``mode="circular"``: (filter * u)[t] = Σ_j filter[j] u[(t - j) mod L].

    Args:
        x: (B, D, L), or (B, L, D) with ``layout="bld"``. float32, float64, bfloat16 or float16; L up to
            2**30, on CUDA up to 2**22 and B D up to 2**31.
        filter: (D, Lf), shared by the batch, or (B, D, Lf), one for each sample, in both layouts. The dtype
            of x, or float32 beside a half type. 1 <= Lf <= L; bidirectional 1 <= Lf <= 2 L - 1. Where
            L = 0, Lf is 0 or 1.
        pre_gate, post_gate: shape and dtype of x. Absent: 1.
        skip: (D,), with the choice of dtypes that filter has. Absent: 0.
        mode: "causal", "bidirectional" or "circular".
        layout: "bdl" or "bld".

    Returns:
        Shape and dtype of x, contiguous. Half types are computed in float32 and rounded once.

    Any strides are read in place, without a copy. Derivatives of every order are supported, as are
    torch.compile, torch.export, torch.func and autocast: x and
    the gates are cast to autocast's dtype, filter and skip stay float32. The same input gives the same bits,
    on every run and for any number of threads.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Per-sample filters are those of Orchid (Karami and Ghodsi, 2024, arXiv:2402.18508); the gated long
    convolution is Hyena's (Poli et al., 2023, arXiv:2302.10866).
    """
    numbers = number_of(_OP, "mode", mode, MODES), number_of(_OP, "layout", layout, LAYOUTS)
    y: Tensor = torch.ops.equiconv.fft_conv(x, filter, pre_gate, post_gate, skip, *numbers)
    return y


_OP = "fft_conv"


# ---- the dispatcher ops: fake kernels, and what is generic over multilinear ops --------------------------


def _check(
    x: Tensor,
    filter: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    mode: int,
    layout: int,
) -> None:
    mode_name = name_of(_OP, "mode", mode, MODES)
    batch, channels, length = check_x(_OP, x, name_of(_OP, "layout", layout, LAYOUTS))
    require(
        filter.dim() in (2, 3),
        lambda: f"{_OP}: filter must be (D, Lf) or (B, D, Lf), but has shape {tuple(filter.shape)}",
    )
    check_kind(_OP, "filter", filter, x, weight=True)
    check_rows(_OP, "filter", filter, batch, channels)
    taps = filter.shape[-1]
    least, most = min(length, 1), max(2 * length - 1 if mode_name == "bidirectional" else length, 1)
    require(
        least <= taps <= most,
        lambda: (
            f"{_OP}: filter must have {least} to {most} taps where mode is {mode_name} and the length of x "
            f"is {length}, but has {taps}"
        ),
    )
    check_signal(_OP, "pre_gate", pre_gate, x)
    check_signal(_OP, "post_gate", post_gate, x)
    check_skip(_OP, skip, x, channels)


def _fake(
    x: Tensor,
    filter: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    mode: int,
    layout: int,
) -> Tensor:
    _check(x, filter, pre_gate, post_gate, skip, mode, layout)
    return x.new_empty(x.shape)


def _fake_backward(
    grad_out: Tensor,
    x: Tensor,
    filter: Tensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    mode: int,
    layout: int,
    *needs: bool,
) -> tuple[Tensor, ...]:
    _check(x, filter, pre_gate, post_gate, skip, mode, layout)
    check_signal(_OP, "grad_out", grad_out, x)
    return tuple(
        argument.new_empty(argument.shape) if need and argument is not None else x.new_empty(0)
        for argument, need in zip((x, filter, pre_gate, post_gate, skip), needs, strict=True)
    )


def _zero(i: int, tensors: Tensors) -> MaybeTensor:
    """Of the group (filter, skip): a filter of one zero tap, and no skip at all."""
    filter = tensors[1]
    if i == 4 or filter is None:
        return None
    return filter.new_zeros(filter.shape[-2], min(filter.shape[-1], 1))


def _channel_axes(mode: int, layout: int) -> tuple[int, ...]:
    signal = -2 if layout == LAYOUTS["bdl"] else -1
    return signal, -2, signal, signal, -1


MultilinearOp(
    name=_OP,
    arguments=("x", "filter", "pre_gate", "post_gate", "skip"),
    groups=((0,), (1, 4), (2,), (3,)),
    zero=_zero,
    channel_axes=_channel_axes,
    weights=(1, 4),
).register(_fake, _fake_backward)
