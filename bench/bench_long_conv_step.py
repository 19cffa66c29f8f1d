"""Decoding a causal long convolution token by token, against the convolution in one go.

    python -m equiconv bench --preset long_conv_step

`whole` is fft_conv of all tokens at once, which no decoder can do. `eager` is the sum over all tokens so far,
as PyTorch code has it, O(L) a token; on a CPU it would take a minute. The row of one channel of one sequence
is what the calls cost whatever their size (on a CPU a channel takes as long as a vector of them). What it
takes to make a decoder, once for a filter, is left out: it is kept for as long as the filter. Of the tokens'
results the last is kept, as by a model that goes on from each to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

import equiconv
from equiconv.nn import LongConvDecoder
from equiconv.reference import fft_conv as reference

from .harness import DTYPES, Case, Entry, Inputs, Op, Results
from .promises import Point, Promise

THREADS = 2
DECODED = Case(
    op="long_conv_step", length=4096, batch=8, channels=256, layout="bld", filter="shared", gates=False
)
CASES = (
    replace(DECODED, batch=1),
    replace(DECODED, channels=64, filter="per-sample"),
    DECODED,
    replace(DECODED, batch=1, channels=1),
)  # fmt: skip


def inputs(case: Case) -> Inputs:
    """Half types have a filter in float32."""
    generator = torch.Generator().manual_seed(0)
    dtype = DTYPES[case.dtype]
    signal = (case.batch, case.length, case.channels)
    taps = signal[::2] if case.filter == "per-sample" else signal[2:]
    names = ("x", "pre_gate", "post_gate") if case.gates else ("x",)
    made = {name: torch.randn(signal, generator=generator).to(case.device, dtype) for name in names}
    filter = torch.randn(*taps, case.length, generator=generator) / math.sqrt(case.length)
    kept = torch.promote_types(dtype, torch.float32)
    return {"x": made.pop("x"), "filter": filter.to(case.device, kept), **made}


_decoders = WeakTensorKeyDictionary()


def token_by_token(x: Tensor, filter: Tensor, **gates: Tensor) -> Tensor:
    if filter not in _decoders:
        _decoders[filter] = LongConvDecoder(filter, batch=len(x))
    decoder = _decoders[filter]
    decoder.reset()
    y = x[:, :0]
    for token in tokens(x, **gates):
        y = decoder(*token)
    return y


def tokens(*signals: Tensor, **gates: Tensor) -> Sequence[tuple[Tensor, ...]]:
    return list(zip(*(s.split(1, dim=1) for s in (*signals, *gates.values())), strict=True))  # type: ignore[no-untyped-call]


def eager(x: Tensor, filter: Tensor, **gates: Tensor) -> Tensor:
    """The sum over all tokens so far, by one product of the taps, turned, with what has been kept."""
    u = torch.zeros_like(x, dtype=filter.dtype)
    taps = filter.flip(-1).mT.contiguous()  # (…, L, D)
    length, y = x.shape[1], x[:, :0]
    for t, (token, *of_gates) in enumerate(tokens(x, **gates)):
        gate = dict(zip(gates, of_gates, strict=True))
        u[:, t : t + 1] = token * gate["pre_gate"] if gate else token
        y = (taps[..., length - t - 1 :, :] * u[:, : t + 1]).sum(1, keepdim=True).to(x.dtype)
        y = y * gate["post_gate"] if gate else y
    return y


def whole(x: Tensor, filter: Tensor, **gates: Any) -> Tensor:
    return equiconv.fft_conv(x, filter, layout="bld", **gates)[:, -1:]


def definition(x: Tensor, filter: Tensor, **gates: Any) -> Tensor:
    return reference.fft_conv(x, filter, layout="bld", **gates)[:, -1:]


LONG_CONV_STEP = Op(
    name="long_conv_step",
    inputs=inputs,
    options=lambda case: {},
    contestants={"equiconv": token_by_token, "whole": whole, "eager": eager},
    reference=definition,
)


def beside_the_calls(results: Results) -> Iterator[Point]:
    """How many times as long as the whole convolution, without what calls take whatever their size."""
    *bulk, least = CASES
    calls = results[Entry(least, "equiconv")].median
    for case in bulk:
        ours, theirs = (results[Entry(case, name)].median for name in ("equiconv", "whole"))
        yield (ours - calls) / theirs, case


PROMISES = (
    Promise(
        "token by token at most 6 times as long as the whole, beside the calls", 6.0, beside_the_calls, False
    ),
)


def groups() -> list[list[Entry]]:
    """All take turns."""
    return [[Entry(case, contestant) for case in CASES for contestant in ("equiconv", "whole")]]
