"""``fft_conv_packed``: :func:`fft_conv` of several sequences of different lengths that lie in one row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from .check import (
    MODES,
    MaybeTensor,
    check_kind,
    check_signal,
    check_skip,
    check_x,
    number_of,
    require,
    text,
)
from .fft_conv import fft_conv
from .registration import under_autocast

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
    """Convolve N sequences that lie one after the other in the one row of `x`, each as if it were alone.

    Sequence n is positions cu_seqlens[n] … cu_seqlens[n + 1] - 1. What comes out there is, bit for bit,
    ``fft_conv`` of it; no value crosses from one sequence to another.

    Args:
        x: (1, D, T), or (1, T, D) with ``layout="bld"``, as for ``fft_conv``.
        filter: (D, Lf), shared; (N, D, Lf), one for each sequence; or N tensors (D, Lf_n). Of a sequence of
            length L those taps are used that can reach from one of its positions to another: causal the
            first L, bidirectional the 2 L - 1 in the middle. Circular, none may have more than L taps.
        cu_seqlens: (N + 1,), where sequences begin, and the end: 0 first, T last, never decreasing; int32 or
            int64, or a list. On a GPU it is waited for once: a list or a tensor on the CPU is not.
        pre_gate, post_gate, skip, mode, layout: as for ``fft_conv``.

    Returns:
        Shape and dtype of x, contiguous.

    Sequences, their gates and filters are read in place. Derivatives of every order, torch.func and autocast
    are as for ``fft_conv``; a program compiled with a list is for these lengths.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    The interface is that of variable lengths in FlashAttention (Dao, 2023, arXiv:2307.08691).
    """
    number_of(_OP, "mode", mode, MODES)
    x, pre_gate, post_gate = under_autocast(x), under_autocast(pre_gate), under_autocast(post_gate)
    batch, channels, total = check_x(_OP, x, layout)
    require(batch == 1, lambda: f"{_OP}: x must have a batch of 1, but has {batch}")
    bounds = _bounds(cu_seqlens, x, total)
    filters = _filters(filter, x, channels, len(bounds) - 1)
    for name, gate in (("pre_gate", pre_gate), ("post_gate", post_gate)):
        check_signal(_OP, name, gate, x)
    check_skip(_OP, skip, x, channels)

    axis = 2 if layout == "bdl" else 1
    lengths = [end - first for first, end in itertools.pairwise(bounds)]
    taps = [
        _reaching(one, length, mode) if length else one for one, length in zip(filters, lengths, strict=True)
    ]

    def part(signal: MaybeTensor, n: int) -> MaybeTensor:
        return None if signal is None else signal.narrow(axis, bounds[n], lengths[n])

    parts = [
        fft_conv(
            x.narrow(axis, bounds[n], length),
            taps[n],
            pre_gate=part(pre_gate, n),
            post_gate=part(post_gate, n),
            skip=skip,
            mode=mode,
            layout=layout,
        )
        for n, length in enumerate(lengths)
        if length
    ]
    return torch.cat(parts, axis) if parts else x.clone(memory_format=torch.contiguous_format)


_OP = "fft_conv_packed"


def _bounds(cu_seqlens: Tensor | Sequence[int], x: Tensor, total: int) -> list[int]:
    bounds = _read(cu_seqlens, x) if isinstance(cu_seqlens, Tensor) else list(cu_seqlens)
    for bound in bounds:
        require(
            not isinstance(bound, float),
            lambda bound=bound: f"{_OP}: cu_seqlens must hold whole numbers, but has {bound}",  # type: ignore[misc]
        )
    require(len(bounds) >= 1, lambda: f"{_OP}: cu_seqlens must have at least one entry, but has none")
    require(bounds[0] == 0, lambda: f"{_OP}: cu_seqlens must begin with 0, but begins with {bounds[0]}")
    for before, after in itertools.pairwise(bounds):
        require(
            before <= after,
            lambda before=before, after=after: (  # type: ignore[misc]
                f"{_OP}: cu_seqlens must not decrease, but has {after} after {before}"
            ),
        )
    require(
        bounds[-1] == total,
        lambda: f"{_OP}: cu_seqlens must end with the length of x, {total}, but ends with {bounds[-1]}",
    )
    return bounds


def _read(cu_seqlens: Tensor, x: Tensor) -> list[int]:
    require(
        cu_seqlens.dtype in (torch.int32, torch.int64),
        lambda: f"{_OP}: cu_seqlens must be int32 or int64, but is {text(cu_seqlens.dtype)}",
    )
    require(
        cu_seqlens.dim() == 1,
        lambda: f"{_OP}: cu_seqlens must have shape (N + 1,), but has {tuple(cu_seqlens.shape)}",
    )
    require(
        cu_seqlens.device.type == "cpu" or cu_seqlens.device == x.device,
        lambda: (
            f"{_OP}: cu_seqlens must be on the CPU or the device of x, {x.device}, "
            f"but is on {cu_seqlens.device}"
        ),
    )
    bounds: list[int] = cu_seqlens.tolist()
    return bounds


def _filters(filter: Tensor | Sequence[Tensor], x: Tensor, channels: int, count: int) -> list[Tensor]:
    """A filter (D, Lf) for each sequence."""
    if isinstance(filter, Tensor):
        shape = tuple(filter.shape)
        require(
            len(shape) in (2, 3),
            lambda: f"{_OP}: filter must be (D, Lf), (N, D, Lf) or N tensors (D, Lf), but has shape {shape}",
        )
        filters = [filter] * count if len(shape) == 2 else list(filter.unbind())
        distinct = filters[:1]
    else:
        filters = distinct = list(filter)
    require(
        len(filters) == count,
        lambda: (
            f"{_OP}: filter must be shared or one for each sequence, {count}, but there are {len(filters)}"
        ),
    )
    for one in distinct:
        require(
            one.dim() == 2 and one.shape[0] == channels and one.shape[1] >= 1,
            lambda one=one: (  # type: ignore[misc]
                f"{_OP}: filter must have the channels of x, {channels}, and a tap, but has shape "
                f"{tuple(one.shape)}"
            ),
        )
        check_kind(_OP, "filter", one, x, weight=True)
    return filters


def _reaching(filter: Tensor, length: int, mode: str) -> Tensor:
    """The taps that reach from one of `length` positions to another."""
    taps = filter.shape[-1]
    if mode == "circular":
        require(
            taps <= length,
            lambda: (
                f"{_OP}: filter must have at most as many taps as each sequence has positions where mode "
                f"is circular, but has {taps} where there are {length}"
            ),
        )
        return filter
    if mode == "causal":
        return filter[:, : min(taps, length)]
    beyond = max((taps - 1) // 2 - (length - 1), 0)
    return filter[:, beyond : beyond + min(taps, 2 * length - 1)]
