"""conditioned_conv against the PyTorch that people write, and the best PyTorch that can be written.

    python -m equiconv bench --preset conditioned_conv

Orchid's sizes: D = 256, both types, a static filter, both gates, a frequency filter of 3 taps with bias. What
is promised is promised of two threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fft import irfft, rfft
from torch.nn.functional import conv1d

import equiconv
from equiconv.reference import conditioned_conv as reference

from .bench_fft_conv import at_least_float32
from .bench_spectral_conv import mirror_weights
from .harness import DIRECTIONS, Case, Entry, Inputs, Op, Results, random_inputs, ratio
from .promises import Point, Promise

WIDTH = 3


@dataclass(frozen=True, kw_only=True)
class ConditionedCase(Case):
    """keyed: Type II."""

    op: str = "conditioned_conv"
    mode: str = "circular"
    keyed: bool = False

    settings: ClassVar[tuple[str, ...]] = ("op", "direction", "keyed", "layout", "dtype", "device")


def inputs(case: Case) -> Inputs:
    """Everything, scaled so that y is about as large as x."""
    assert isinstance(case, ConditionedCase)
    signal = (case.batch, case.channels, case.length)
    if case.layout == "bld":
        signal = (case.batch, case.length, case.channels)
    shapes = {"query": signal, **({"key": signal} if case.keyed else {})}
    weights = {
        "frequency_filter": (case.channels, WIDTH),
        "frequency_bias": (case.channels,),
        "filter": (case.channels, case.length),
    }
    tensors = random_inputs(case, **shapes, **weights)
    tensors["frequency_filter"] /= WIDTH * (case.length if case.keyed else math.sqrt(case.length))
    tensors["filter"] /= math.sqrt(case.length)
    return tensors


def continued(a: Tensor, length: int, before: int, after: int) -> Tensor:
    """A half spectrum and what precedes and follows it."""
    left = a[..., 1 : before + 1].flip(-1)
    last = a.shape[-1] - 1 if length % 2 == 0 else a.shape[-1]
    right = a[..., last - after : last].flip(-1)
    return (
        torch.cat((left.conj(), a, right.conj()), -1) if a.is_complex() else torch.cat((left, a, right), -1)
    )


def eager(
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
    """The expression in the code of models, with nn.Conv1d's convolution along frequency."""
    u = x if pre_gate is None else pre_gate * x
    if layout == "bld":
        u, query = u.transpose(1, 2), query.transpose(1, 2)
        key = None if key is None else key.transpose(1, 2)
    length, width = u.shape[-1], frequency_filter.shape[-1]
    weights = at_least_float32(frequency_filter).flip(-1)[:, None]

    def mixed(a: Tensor) -> Tensor:
        bias = None if frequency_bias is None else at_least_float32(frequency_bias)
        return conv1d(a, weights, bias, groups=a.shape[1])

    before, after = (width - 1) // 2, width // 2
    q = rfft(at_least_float32(query))
    if key is None:
        h = mixed(continued(q.abs(), length, before, after))
    else:
        a = continued(rfft(at_least_float32(key)).conj() * q, length, before, after)
        h = torch.complex(mixed(a.real), mixed(a.imag))
    if filter is not None:
        h = h + rfft(at_least_float32(filter), n=length)
    y: Tensor = irfft(rfft(at_least_float32(u)) * h, n=length).to(x.dtype)
    if skip is not None:
        y = y + u * skip[:, None]
    if layout == "bld":
        y = y.transpose(1, 2)
    return y if post_gate is None else y * post_gate


class Handwritten(torch.autograd.Function):
    """The best torch.fft can do for an odd width. Everything is (B, D, L) in here."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> Tensor:
        x, query, key, taps, bias, filter, pre_gate, post_gate, skip = tensors
        assert x is not None
        assert query is not None
        assert taps is not None
        n = x.shape[-1]
        u = x if pre_gate is None else x * pre_gate
        u_f, q_f = rfft(u), rfft(query)
        k_f = None if key is None else rfft(key)
        a = continued(
            q_f.abs() if k_f is None else q_f * k_f.conj(), n, taps.shape[1] // 2, taps.shape[1] // 2
        )
        h = slide(a, taps.flip(-1))
        if bias is not None:
            h = h.add_((bias if key is None else torch.complex(bias, bias))[:, None])
        if filter is not None:
            h = h + rfft(filter, n=n)
        c: Tensor = irfft(u_f * h, n=n)
        if skip is not None:
            c.addcmul_(u, skip[:, None])
        ctx.save_for_backward(*tensors, u_f, q_f, k_f, a, h, None if post_gate is None else c)
        return c if post_gate is None else c * post_gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, _, key, taps, bias, filter, pre_gate, post_gate, skip, u_f, q_f, k_f, a, h, c = ctx.saved_tensors
        n, width = x.shape[-1], taps.shape[1]
        g = grad_out if post_gate is None else grad_out * post_gate
        g_f = rfft(g)
        grad_u = irfft(g_f * h.conj(), n=n)
        grad_h = g_f * u_f.conj()
        grad_filter = irfft(grad_h.sum(0), n=n)[..., : filter.shape[-1]] if filter is not None else None
        grad_h = (grad_h if key is not None else grad_h.real).mul_(mirror_weights(n, g))
        if key is not None:
            grad_h.imag[..., :: n // 2 if n % 2 == 0 else n] = 0
        size = grad_h.shape[-1]
        grad_taps = torch.stack(
            [dot(a[..., width - 1 - j : width - 1 - j + size], grad_h) for j in range(width)], -1
        )
        half = width // 2
        padded = torch.nn.functional.pad(grad_h, (width - 1, width - 1))
        wide = slide(padded, taps)  # half a width beyond both ends
        grad_a = wide[..., half : half + size].clone()
        left, right = wide[..., :half].flip(-1), wide[..., half + size :].flip(-1)
        last = size - 1 if n % 2 == 0 else size
        grad_a[..., 1 : half + 1] += left.conj() if key is not None else left
        grad_a[..., last - half : last] += right.conj() if key is not None else right
        grad_a /= mirror_weights(n, g) * n
        if k_f is None:
            direction = torch.sgn(q_f).mul_(grad_a.mul_(n))
            grad_query, grad_key = irfft(direction, n=n), None
        else:
            grad_query = irfft((grad_a * k_f).mul_(n), n=n)
            grad_key = irfft((grad_a.conj() * q_f).mul_(n), n=n)
        u = x if pre_gate is None else x * pre_gate
        lag0 = (g * u).sum((0, 2))
        grad_bias = None if bias is None else lag0
        if bias is not None and key is not None:
            grad_bias = lag0 + grad_h.imag.sum((0, 2))
        if skip is not None:
            grad_u.addcmul_(g, skip[:, None])
        return (
            grad_u if pre_gate is None else grad_u * pre_gate,
            grad_query,
            grad_key,
            grad_taps,
            grad_bias,
            grad_filter,
            None if pre_gate is None else grad_u * x,
            None if post_gate is None else grad_out * c,
            None if skip is None else lag0,
        )


def slide(a: Tensor, taps: Tensor) -> Tensor:
    """out[k] = sum over j of taps[j] * a[k + j]"""
    width = taps.shape[-1]
    size = a.shape[-1] - width + 1
    out = a[..., :size] * taps[:, :1]
    for j in range(1, width):
        out.addcmul_(a[..., j : j + size], taps[:, j : j + 1])
    return out


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Of the numbers of every channel, as pairs of real ones."""
    if a.is_complex():
        a, b = (torch.view_as_real(t).flatten(-2) for t in (a, b))
    return (a * b).sum((0, 2))


def handwritten(
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
    def rows(t: Tensor | None) -> Tensor | None:
        return t if t is None or layout == "bdl" else t.transpose(1, 2)

    weights = (frequency_filter, frequency_bias, filter)
    y: Tensor = Handwritten.apply(  # type: ignore[no-untyped-call]
        rows(x), rows(query), rows(key), *weights, rows(pre_gate), rows(post_gate), skip
    )
    return y if layout == "bdl" else y.transpose(1, 2)


CONDITIONED_CONV = Op(
    name="conditioned_conv",
    inputs=inputs,
    options=lambda case: {"layout": case.layout},
    contestants={"equiconv": equiconv.conditioned_conv, "eager": eager, "handwritten": handwritten},
    reference=reference.conditioned_conv,
    case=ConditionedCase,
)

# ---- the promises ------------------------------------------------------------------------------------------

THREADS = 2
CASES = tuple(
    ConditionedCase(length=length, batch=2**22 // (256 * length), channels=256, keyed=keyed)
    for length in (1024, 4096, 16384)
    for keyed in (False, True)
)


def faster_than(baseline: str, direction: str) -> Callable[[Results], Iterator[Point]]:
    def points(results: Results) -> Iterator[Point]:
        for case in CASES:
            at = replace(case, direction=direction)
            yield ratio(results, at, baseline), at

    return points


PROMISES = tuple(
    Promise(f"{text}: {bound:g} times as fast as {baseline}", bound, faster_than(baseline, direction), True)
    for direction, text in (("forward", "forward"), ("backward", "forward and backward"))
    for baseline, bound in (("eager", 4.0), ("handwritten", 2.5))
)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns."""
    plan = []
    for direction in DIRECTIONS:
        for case in CASES:
            timed = replace(case, direction=direction)
            entries = [Entry(timed, contestant) for contestant in ("equiconv", "eager", "handwritten")]
            plan.append([*entries, Entry(replace(timed, layout="bld"), "equiconv")])
    return plan
