"""``short_conv``: depthwise convolution with a few taps, its fused first gate, and one step of it."""

from __future__ import annotations

import torch
from torch import Tensor

from . import short_conv_derivatives as _registered  # noqa: F401  the dispatcher ops' Python side
from .check import LAYOUTS, number_of, one_of, require
from .short_conv_checks import ACTIVATIONS, GATED, MAX_TAPS, OP, SHORT_MODES, STATE, STEP

__all__ = ["short_conv", "short_conv_gated", "short_conv_state", "short_conv_step"]


def short_conv(
    x: Tensor,
    filter: Tensor,
    *,
    bias: Tensor | None = None,
    activation: str | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    r"""Convolve every channel of `x` with its own W taps, bias and activation fused in.

    .. math:: y = \mathrm{activation}(\text{filter} * x + \text{bias})

    with, for taps j = 0 … W - 1,

    - ``mode="causal"``: (filter * x)[t] = Σ_j filter[j] x[t - j], x being zero before 0;
    - ``mode="centered"``: (filter * x)[t] = Σ_j filter[j] x[t - j + W // 2], x being zero outside 0 … L - 1;
      tap W // 2 has lag 0;
    - ``mode="circular"``: (filter * x)[t] = Σ_j filter[j] x[(t - j) mod L]; tap 0 has lag 0;
    - ``mode="circular_centered"``: (filter * x)[t] = Σ_j filter[j] x[(t - j + W // 2) mod L].

    ``torch.nn.Conv1d(D, D, W, groups=D)`` correlates, so its taps come in the opposite order:
    ``filter = conv.weight[:, 0].flip(-1)``. With these, "causal" is a padding of W - 1 on the left,
    "centered" is ``padding="same"`` for odd and even W, and "circular_centered" the same with
    ``padding_mode="circular"``.

    Args:
        x: (B, D, L), or (B, L, D) with ``layout="bld"``. float32, float64, bfloat16, float16, complex64 or
            complex128. Of complex x, such as a spectrum along frequency, real and imaginary parts are
            convolved with the same filter, and the bias is added to both.
        filter: (D, W), 1 <= W <= 16, in both layouts; W may exceed L. The dtype of x (of its real parts), or
            float32 beside a half type.
        bias: (D,), with the choice of dtypes that filter has. Absent: 0.
        activation: None, "silu", or "gelu" (the exact one, with erf). None where x is complex.
        mode: "causal", "centered", "circular" or "circular_centered".
        layout: "bdl" or "bld".

    Returns:
        Shape and dtype of x, contiguous. Half types are computed in float32 and rounded once.

    Any strides are read in place, without a copy. Derivatives of every order are supported, as are
    torch.compile, torch.export, torch.func and autocast: x is
    cast to autocast's dtype (complex x is not), filter and bias stay float32. The same input gives the same
    bits, on every run, for any number of threads and in both layouts.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    The short convolutions of Hyena (Poli et al., 2023, arXiv:2302.10866), of Orchid along time and along
    frequency (Karami and Ghodsi, 2024, arXiv:2402.18508), and of Mamba (Gu and Dao, 2023, arXiv:2312.00752).
    """
    form = _form(OP, mode, layout, filter)
    y: Tensor
    if activation is None:
        y = torch.ops.equiconv.short_conv(x, filter, bias, *form)
    else:
        number = number_of(OP, "activation", activation, ACTIVATIONS)
        y = torch.ops.equiconv.short_conv_activated(x, filter, bias, number, *form)
    return y


def short_conv_gated(
    z: Tensor, filter: Tensor, *, bias: Tensor | None = None, mode: str = "causal", layout: str = "bld"
) -> tuple[Tensor, Tensor]:
    r"""Short convolution of three streams, and the first gate, in one pass: how Orchid and Hyena begin.

    .. math:: (x_0, x_1, v) = \text{filter} * z + \text{bias}, \qquad u = x_1 \odot v

    Args:
        z: (B, L, 3D), or (B, 3D, L) with ``layout="bdl"``: the channels of x0, then x1's, then v's.
            float32, float64, bfloat16 or float16.
        filter: (3D, W), as for :func:`short_conv`.
        bias: (3D,). Absent: 0.
        mode: as for :func:`short_conv`.
        layout: "bld" or "bdl".

    Returns:
        x0 and u: (B, L, D) or (B, D, L), of the dtype of z, contiguous.

    Strides, derivatives, compilation, torch.func (vmap calls once for each entry), autocast and bits are as
    for :func:`short_conv`.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    The beginning of the operators of Hyena (Poli et al., 2023, arXiv:2302.10866) and Orchid (Karami and
    Ghodsi, 2024, arXiv:2402.18508); what follows is :func:`fft_conv` of u, with x0 as its post_gate.
    """
    x0, u = torch.ops.equiconv.short_conv_gated(z, filter, bias, *_form(GATED, mode, layout, filter))
    return x0, u


def short_conv_step(
    x: Tensor, state: Tensor, filter: Tensor, *, bias: Tensor | None = None, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """The causal :func:`short_conv` at one more position, for decoding.

    Args:
        x: (B, D), the channels at this position.
        state: (B, D, W-1), the W - 1 positions before it, the oldest first: what the step before returned,
            what :func:`short_conv_state` makes of a prompt, or zeros. The dtype of x.
        filter: (D, W). bias: (D,). activation: as for :func:`short_conv`.

    Returns:
        y: (B, D), with the bits that ``short_conv`` of the whole sequence has there, and the next state.
        Both contiguous; `state` is left as it is.

    Derivatives of every order are supported, through :func:`short_conv` of the W positions in reach.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.
    """
    number = 0 if activation is None else number_of(STEP, "activation", activation, ACTIVATIONS)
    y, state = torch.ops.equiconv.short_conv_step(x, state, filter, bias, number)
    return y, state


def short_conv_state(x: Tensor, width: int, *, layout: str = "bdl") -> Tensor:
    """The state with which :func:`short_conv_step` goes on after a prompt: its last W - 1 positions.

    Args:
        x: the prompt, (B, D, L), or (B, L, D) with ``layout="bld"``; L may be 0 or less than W - 1, what is
            before it is zero.
        width: W.

    Returns:
        (B, D, W-1), contiguous.
    """
    number_of(STATE, "layout", layout, LAYOUTS)
    shape = "(B, D, L)" if layout == "bdl" else "(B, L, D)"
    require(x.dim() == 3, lambda: f"{STATE}: x must be {shape}, but has shape {tuple(x.shape)}")
    require(1 <= width <= MAX_TAPS, lambda: f"{STATE}: width must be 1 to {MAX_TAPS}, but is {width}")
    rows = x if layout == "bdl" else x.mT
    kept = rows[..., max(rows.shape[-1] - (width - 1), 0) :]
    return torch.nn.functional.pad(kept, (width - 1 - kept.shape[-1], 0)).contiguous()


def _form(op: str, mode: str, layout: str, filter: Tensor) -> tuple[bool, int, int]:
    """What the dispatcher ops know of mode and layout: is x periodic, how far does tap 0 look ahead."""
    require(mode in SHORT_MODES, lambda: f"{op}: mode must be {one_of(SHORT_MODES)}, but is {mode}")
    taps = filter.shape[1] if filter.dim() == 2 and not filter.is_nested else 0
    ahead = taps // 2 if mode.endswith("centered") else 0
    return mode.startswith("circular"), ahead, number_of(op, "layout", layout, LAYOUTS)
