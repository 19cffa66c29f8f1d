"""``conditioned_conv``: gated circular convolution with a filter that is made from the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..reference.conditioned_conv import frequency_conv
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

__all__ = ["conditioned_conv"]


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
    r"""Orchid's data-dependent circular convolution, the network that makes its filter included.

    .. math:: y = \text{post\_gate} \odot \big(\mathrm{irfft}((H + \mathrm{rfft}(\text{filter}, L)) \odot
              \mathrm{rfft}(u)) + \text{skip} \odot u\big), \qquad u = \text{pre\_gate} \odot x

    .. math:: H = S(|\mathrm{rfft}(\text{query})|) \quad \text{(Type I, without a key)}, \qquad
              H = S(\overline{\mathrm{rfft}(\text{key})} \odot \mathrm{rfft}(\text{query})) \quad
              \text{(Type II)}

    .. math:: S(a)[k] = \text{frequency\_bias} + \sum_{j=0}^{W-1} \text{frequency\_filter}[j]\;
              a[k - j + \lfloor W/2 \rfloor], \qquad k = 0, \dots, \lfloor L/2 \rfloor

    Transforms are unscaled forward, 1/L back. The spectrum a is that of a real signal and is continued as
    such, a[-k] = conj(a[k]) with period L: nothing is padded with zeros. Of Type II, S acts on real and
    imaginary part alike, bias included (bias + i bias); as in ``torch.fft.irfft``, imaginary parts of H at
    frequency 0 and, for even L, at L/2 are not read.

    H does not change where query, or query and key, are shifted around their circle, so y shifts as x and the
    gates do: exactly, for any shift and any L.

    Args:
        x: (B, D, L), or (B, L, D) with ``layout="bld"``. float32, float64, bfloat16 or float16.
        query, key: shape and dtype of x; the signal that conditions, after its short convolution in time. The
            key may come from another sequence of the same length.
        frequency_filter: (D, W), W from 1 to 16, of the dtype of x, or float32 beside a half type.
        frequency_bias: (D,), of those dtypes. Absent: 0.
        filter: (D, Lf), 1 ≤ Lf ≤ L, of those dtypes: the static filter, in time. Absent: 0.
        pre_gate, post_gate: shape and dtype of x. Absent: 1.
        skip: (D,), of the dtype of x, or float32 beside a half type. Absent: 0.
        layout: "bdl" or "bld".

    Returns:
        Shape and dtype of x, contiguous. Half types are computed in float32 and rounded once.

    On a CPU everything is one pass over each row, and backward another; no spectrum ever exists in memory.
    The fastest lengths are multiples of 512 with no prime factor above 7; others with no such factor come
    next. Derivatives of every order, compilation, torch.func, autocast, strides and bits are as for
    :func:`fft_conv`. A magnitude of 0 has derivative 0 (of every order); of Type I, derivatives of which a
    graph is wanted, and those in forward mode, are made of Type II's and take twice as long.

    On CUDA lengths that are powers of two, from 64 to 8192 (float64: to 4096; half of it where a block has
    less shared memory than an A100's), are one pass over each row forward and one backward, and a sum over
    the batch. At every other length H is made by torch.fft and elementwise operations of PyTorch, and the
    convolution is ``fft_conv`` with the filter irfft(H) + filter, one for each sample, which exists in
    memory.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Karami and Ghodsi, Orchid, NeurIPS 2024, arXiv:2402.18508, sections 3.2 (the convolution) and 3.3 (the
    conditioning networks).
    """
    y: Tensor = torch.ops.equiconv.conditioned_conv(
        x,
        query,
        key,
        frequency_filter,
        frequency_bias,
        filter,
        pre_gate,
        post_gate,
        skip,
        number_of(_OP, "layout", layout, LAYOUTS),
    )
    return y


_OP = "conditioned_conv"
_MAX_WIDTH = 16


# ---- the dispatcher ops: fake kernels, and what is generic over multilinear ops --------------------------


def _check(
    x: Tensor,
    query: Tensor,
    key: MaybeTensor,
    frequency_filter: Tensor,
    frequency_bias: MaybeTensor,
    filter: MaybeTensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
) -> None:
    batch, channels, length = check_x(_OP, x, name_of(_OP, "layout", layout, LAYOUTS))
    check_signal(_OP, "query", query, x)
    check_signal(_OP, "key", key, x)
    _check_taps("frequency_filter", "W", frequency_filter, x, batch, channels)
    width = frequency_filter.shape[1]
    require(
        1 <= width <= _MAX_WIDTH,
        lambda: f"{_OP}: frequency_filter must have 1 to {_MAX_WIDTH} taps, but has {width}",
    )
    check_skip(_OP, frequency_bias, x, channels, "frequency_bias")
    if filter is not None:
        _check_taps("filter", "Lf", filter, x, batch, channels)
        taps = filter.shape[1]
        least, most = min(length, 1), max(length, 1)
        require(
            least <= taps <= most,
            lambda: (
                f"{_OP}: filter must have {least} to {most} taps where the length of x is {length}, "
                f"but has {taps}"
            ),
        )
    check_signal(_OP, "pre_gate", pre_gate, x)
    check_signal(_OP, "post_gate", post_gate, x)
    check_skip(_OP, skip, x, channels)


def _check_taps(name: str, axis: str, weight: Tensor, x: Tensor, batch: int, channels: int) -> None:
    """One row of weights for each channel."""
    require(
        weight.dim() == 2,
        lambda: f"{_OP}: {name} must be (D, {axis}), but has shape {tuple(weight.shape)}",
    )
    check_kind(_OP, name, weight, x, weight=True)
    check_rows(_OP, name, weight, batch, channels)


def _fake(x: Tensor, *others: Any) -> Tensor:
    _check(x, *others)
    return x.new_empty(x.shape)


def _fake_backward(grad_out: Tensor, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    tensors, needs = (x, *others[:8]), others[9:]
    _check(x, *others[:9])
    check_signal(_OP, "grad_out", grad_out, x)
    return tuple(
        argument.new_empty(argument.shape) if need and argument is not None else x.new_empty(0)
        for argument, need in zip(tensors, needs, strict=True)
    )


_QUERY, _KEY, _FREQUENCY_FILTER, _FREQUENCY_BIAS, _FILTER, _SKIP = 1, 2, 3, 4, 5, 8
_STATIC = (_FREQUENCY_BIAS, _FILTER, _SKIP)  # what makes y that neither query nor key is part of


def _zero(i: int, tensors: Tensors) -> MaybeTensor:
    """Of the group of all weights: a frequency filter of one zero tap, and nothing static."""
    frequency_filter = tensors[_FREQUENCY_FILTER]
    if i != _FREQUENCY_FILTER or frequency_filter is None:
        return None
    return frequency_filter.new_zeros(frequency_filter.shape[0], 1)


def _channel_axes(layout: int) -> tuple[int, ...]:
    signal = -2 if layout == LAYOUTS["bdl"] else -1
    return signal, signal, signal, -2, -1, -2, signal, signal, -1


class ConditionedOp(MultilinearOp):
    """Type II is linear in each argument. Type I is Type II with a key of the query's phases.

    |Q| = conj(P) Q, P = Q/|Q|, and as d|Q| = Re(conj(P) dQ), a derivative by its query is the mean of Type
    II's with (query, key) = (dq, p) and with (p, dq), p = irfft(P). So its derivatives beyond the fused first
    are made of Type II's and of p, a function of the query that PyTorch differentiates.
    """

    def _exchanges(
        self, tensors: Tensors, others: Tensors, rest: tuple[Any, ...]
    ) -> Iterator[tuple[tuple[int, ...], Tensors]]:
        query, tangent = tensors[_QUERY], others[_QUERY]
        if tensors[_KEY] is not None or query is None or tangent is None:
            yield from super()._exchanges(tensors, others, rest)
            return
        others = [None if i == _QUERY else other for i, other in enumerate(others)]
        yield from super()._exchanges(tensors, others, rest)
        phases = _phases(query, *rest)
        for a, b in ((tangent / 2, phases), (phases, tangent / 2)):
            exchanged = [None if i in _STATIC else tensor for i, tensor in enumerate(tensors)]
            exchanged[_QUERY], exchanged[_KEY] = a, b
            yield (_QUERY,), exchanged

    def _differentiable_backward(self, *args: Any) -> tuple[Tensor, ...] | None:
        grad_out, *tensors = args[: 1 + self.count]
        layout, *needs = args[1 + self.count :]
        if tensors[_KEY] is not None:
            return None
        phases = _phases(tensors[_QUERY], layout)

        # The real bias is a tap at lag 0, as skip is; Type II's would have an imaginary part.
        both = list(tensors)
        both[_KEY], both[_FREQUENCY_BIAS] = phases, None
        lag0 = [tensors[i] for i in (_FREQUENCY_BIAS, _SKIP) if tensors[i] is not None]
        both[_SKIP] = sum(lag0) if lag0 else None
        wanted = [need and i not in (_QUERY, _FREQUENCY_BIAS) for i, need in enumerate(needs)]
        wanted[_SKIP] = bool(lag0) and (needs[_SKIP] or needs[_FREQUENCY_BIAS])
        grads: list[MaybeTensor] = [None] * self.count
        if any(wanted):
            grads = list(self.backward(grad_out, *both, layout, *wanted))
            grads[_FREQUENCY_BIAS] = grads[_SKIP]

        if needs[_QUERY]:
            both = [None if i in _STATIC else tensor for i, tensor in enumerate(tensors)]
            both[_QUERY] = both[_KEY] = phases
            wanted = [i in (_QUERY, _KEY) for i in range(self.count)]
            of = self.backward(grad_out, *both, layout, *wanted)
            grads[_QUERY] = (of[_QUERY] + of[_KEY]) / 2
        return tuple(
            grad.to(tensor.dtype)
            if need and grad is not None and tensor is not None
            else grad_out.new_empty(0)
            for grad, need, tensor in zip(grads, needs, tensors, strict=True)
        )


def _phases(query: Tensor, layout: int) -> Tensor:
    """The signal whose spectrum is the query's with every magnitude 1, or 0 where it is 0."""
    if query.numel() == 0:  # torch.fft takes neither no rows nor no positions
        return query
    axis = 2 if layout == LAYOUTS["bdl"] else 1
    wide = query.to(torch.promote_types(query.dtype, torch.float32))
    spectrum = torch.fft.rfft(wide, dim=axis)
    # torch.sgn has derivatives too, but beyond the first they are no numbers at 0.
    power = spectrum.real.square() + spectrum.imag.square()
    none = power == 0
    scale = torch.where(none, 0, torch.where(none, 1, power).rsqrt())
    phases: Tensor = torch.fft.irfft(spectrum * scale, n=query.shape[axis], dim=axis)
    return phases.to(query.dtype)


conditioned = ConditionedOp(
    name=_OP,
    arguments=(
        "x",
        "query",
        "key",
        "frequency_filter",
        "frequency_bias",
        "filter",
        "pre_gate",
        "post_gate",
        "skip",
    ),
    groups=((0,), (_QUERY,), (_KEY,), (_FREQUENCY_FILTER, *_STATIC), (6,), (7,)),
    apart={_QUERY: _STATIC, _KEY: _STATIC},
    zero=_zero,
    channel_axes=_channel_axes,
    weights=(_FREQUENCY_FILTER, *_STATIC),
)
conditioned.register(_fake, _fake_backward)


# ---- CUDA: kernels for some lengths, else with the filter in memory ----------------------------------------


def _on_cuda(*args: Any) -> Tensor:
    ops = torch.ops.equiconv
    fuses = ops.conditioned_conv_fuses(args[0], args[9])
    y: Tensor = (ops.conditioned_conv_fused if fuses else _through_filter)(*args)
    return y


def _on_cuda_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    ops = torch.ops.equiconv
    fuses = ops.conditioned_conv_fuses(args[0], args[9])
    backward = ops.conditioned_conv_fused_backward if fuses else _through_filter_backward
    return tuple(backward(grad_out, *args))


def _through_filter(
    x: Tensor,
    query: Tensor,
    key: MaybeTensor,
    frequency_filter: Tensor,
    frequency_bias: MaybeTensor,
    filter: MaybeTensor,
    pre_gate: MaybeTensor,
    post_gate: MaybeTensor,
    skip: MaybeTensor,
    layout: int,
) -> Tensor:
    _check(x, query, key, frequency_filter, frequency_bias, filter, pre_gate, post_gate, skip, layout)
    if x.numel() == 0:
        return x.new_empty(x.shape)
    a, *_ = _signal(query, key, layout)
    total = _filter(a, frequency_filter, frequency_bias, filter, _length(x, layout))
    y: Tensor = torch.ops.equiconv.fft_conv(x, total, pre_gate, post_gate, skip, MODES["circular"], layout)
    return y


def _through_filter_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    _check(*args[:10])
    tensors, layout, needs = args[:9], args[9], args[10:]
    x, query, key, frequency_filter, frequency_bias, filter, pre_gate, post_gate, skip = tensors
    check_signal(_OP, "grad_out", grad_out, x)
    grads: dict[int, Tensor] = {}
    if x.numel() == 0:
        grads = {i: torch.zeros_like(tensor) for i, tensor in enumerate(tensors) if tensor is not None}
    else:
        length = _length(x, layout)
        a, q, k = _signal(query, key, layout)
        total = _filter(a, frequency_filter, frequency_bias, filter, length)
        of_filter = any(needs[_QUERY : _FILTER + 1])
        grads[0], grad_total, grads[6], grads[7], grads[_SKIP] = torch.ops.equiconv.fft_conv_backward(
            grad_out,
            x,
            total,
            pre_gate,
            post_gate,
            skip,
            MODES["circular"],
            layout,
            needs[0],
            of_filter,
            needs[6],
            needs[7],
            needs[_SKIP],
        )
        if of_filter:
            if filter is not None:
                grads[_FILTER] = grad_total.sum(0)[:, : filter.shape[1]]
            grad = torch.fft.rfft(grad_total)  # of H, but for what a frequency counts
            grad = grad if key is not None else grad.real
            grads |= _conditioning_backward(grad, a, q, k, frequency_filter, length, layout)
    return tuple(
        grads[i].to(tensor.dtype) if need and tensor is not None else x.new_empty(0)
        for i, (tensor, need) in enumerate(zip(tensors, needs, strict=True))
    )


def _length(x: Tensor, layout: int) -> int:
    return x.shape[2 if layout == LAYOUTS["bdl"] else 1]


def _signal(query: Tensor, key: MaybeTensor, layout: int) -> tuple[Tensor, Tensor, MaybeTensor]:
    """What the conditioning network sees, and the spectra of query and key."""

    def spectrum(tensor: Tensor) -> Tensor:
        rows = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        transformed: Tensor = torch.fft.rfft(rows if layout == LAYOUTS["bdl"] else rows.mT)
        return transformed

    q = spectrum(query)
    if key is None:
        return q.abs(), q, None
    k = spectrum(key)
    return k.conj() * q, q, k


def _filter(
    a: Tensor, frequency_filter: Tensor, frequency_bias: MaybeTensor, filter: MaybeTensor, length: int
) -> Tensor:
    """The whole filter, in time."""
    real = a.real.dtype
    bias = None if frequency_bias is None else frequency_bias.to(real)
    total: Tensor = torch.fft.irfft(frequency_conv(a, frequency_filter.to(real), bias, length), n=length)
    if filter is not None:
        total = total + torch.nn.functional.pad(filter.to(real), (0, length - filter.shape[1]))
    return total


def _conditioning_backward(
    grad: Tensor, a: Tensor, q: Tensor, k: MaybeTensor, frequency_filter: Tensor, length: int, layout: int
) -> dict[int, Tensor]:
    """The gradients of query, key, frequency filter and bias; `grad`: that of H in time, transformed."""
    half, width = length // 2, frequency_filter.shape[1]
    taps = frequency_filter.to(a.real.dtype)
    counts = torch.full((half + 1,), 2 / length, dtype=taps.dtype, device=taps.device)
    counts[:: half if length % 2 == 0 else length] = 1 / length  # these frequencies stand for themselves only
    grad = grad * counts
    if grad.is_complex():
        grad.imag[..., :: half if length % 2 == 0 else length] = 0
    parts = (grad.real, grad.imag) if grad.is_complex() else (grad,)
    grads = {_FREQUENCY_BIAS: torch.stack([part.sum((0, 2)) for part in parts]).sum(0)}

    # Around the whole circle the adjoint is a convolution too; its second half belongs to the first.
    around = torch.nn.functional.pad(grad, (0, length - half - 1))
    grad_a = torch.zeros_like(around)
    of_taps = []
    for j in range(width):
        back = torch.roll(around, width // 2 - j, -1)
        grad_a = grad_a + taps[:, j, None] * back
        folded = _folded(back, length)
        of_taps.append((a.conj() * folded).real.sum((0, 2)))
    grads[_FREQUENCY_FILTER] = torch.stack(of_taps, -1)

    grad_a = _folded(grad_a, length) / counts
    if grad_a.is_complex():
        grad_a.imag[..., :: half if length % 2 == 0 else length] = 0
    spectra = {_QUERY: torch.sgn(q) * grad_a} if k is None else {_QUERY: k * grad_a, _KEY: q * grad_a.conj()}
    for i, spectrum in spectra.items():
        rows = torch.fft.irfft(spectrum, n=length)
        grads[i] = rows if layout == LAYOUTS["bdl"] else rows.mT.contiguous()
    return grads


def _folded(around: Tensor, length: int) -> Tensor:
    half = length // 2
    folded = around[..., : half + 1].clone()
    folded[..., 1 : (length + 1) // 2] += around[..., half + 1 :].flip(-1).conj()
    return folded


if torch._C._dispatch_has_kernel_for_dispatch_key("equiconv::fft_conv", "CUDA"):
    torch.library.impl(conditioned.forward.name(), "CUDA", _on_cuda)
    torch.library.impl(conditioned.backward.name(), "CUDA", _on_cuda_backward)
