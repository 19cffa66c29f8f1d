"""The definition of ``fft_conv_packed``, in plain PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from .fft_conv import fft_conv

__all__ = ["fft_conv_packed"]


def fft_conv_packed(
    x: Tensor,
    filter: Tensor | Sequence[Tensor],
    cu_seqlens: Tensor | Sequence[int],
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    """fft_conv of each of x[..., cu_seqlens[n] : cu_seqlens[n + 1]], or of x[:, …] with layout "bld".

    x, gates: (1, D, T) or (1, T, D); filter: (D, Lf), or one such for each sequence; skip: (D,).
    """
    axis = 2 if layout == "bdl" else 1
    bounds = torch.as_tensor(cu_seqlens).tolist()
    lengths = [end - first for first, end in itertools.pairwise(bounds)]
    filters = [filter] * len(lengths) if isinstance(filter, Tensor) and filter.dim() == 2 else filter
    parts = []
    for n, (first, length) in enumerate(zip(bounds, lengths, strict=False)):
        taps = filters[n]
        # More zeros at the end change nothing, so that a filter may be as long as it is.
        room = 0 if mode == "circular" else taps.shape[-1]
        signals = (None if s is None else s.narrow(axis, first, length) for s in (x, pre_gate, post_gate))
        one, pre, post = (
            None if s is None else pad(s, (0, room) if axis == 2 else (0, 0, 0, room)) for s in signals
        )
        assert one is not None
        y = fft_conv(one, taps, pre_gate=pre, post_gate=post, skip=skip, mode=mode, layout=layout)
        parts.append(y.narrow(axis, 0, length))
    return torch.cat([x.narrow(axis, 0, 0), *parts], axis)
