"""short_conv and its gated form against the PyTorch that people write, compiled too, and a copy of the bytes.

    python -m equiconv bench --preset short_conv

Models keep (B, L, D) and transpose for conv1d; (B, D, L) is its own layout. Sizes are past the caches, with
four taps and a bias, as in Hyena, Orchid and Mamba. What is promised is promised of two threads. The copy
(copy.cpp) reads as many arrays as the kernels and writes as many: one and one forward, gated three and two,
and backward two and one, gated five and three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

import equiconv
from equiconv.reference import short_conv as reference

from .bench_gate import _copy
from .harness import DIRECTIONS, DTYPES, Case, Entry, Inputs, Op, Results, ratio
from .promises import Point, Promise

TAPS = 4


@dataclass(frozen=True, kw_only=True)
class ShortCase(Case):
    """`taps` taps; of the gated form `channels` are those of u."""

    op: str = "short_conv"
    layout: str = "bld"
    taps: int = TAPS
    activation: str = "none"

    settings: ClassVar[tuple[str, ...]] = (
        "op",
        "direction",
        "mode",
        "layout",
        "taps",
        "activation",
        "dtype",
        "device",
    )


def inputs(case: Case) -> Inputs:
    taps = case.taps if isinstance(case, ShortCase) else TAPS
    gated = case.op == "short_conv_gated"
    channels = case.channels * (3 if gated else 1)
    shape = (case.batch, case.length, channels)
    if case.layout == "bdl":
        shape = (case.batch, channels, case.length)
    shapes = {"z" if gated else "x": shape, "filter": (channels, taps), "bias": (channels,)}
    generator = torch.Generator(case.device).manual_seed(0)
    return {
        name: torch.randn(size, generator=generator, device=case.device).to(DTYPES[case.dtype])
        for name, size in shapes.items()
    }


def options(case: Case) -> dict[str, Any]:
    named = case.activation if isinstance(case, ShortCase) else "none"
    activation = {} if named == "none" else {"activation": named}
    return {"mode": case.mode, "layout": case.layout, **activation}


def eager(
    x: Tensor,
    filter: Tensor,
    bias: Tensor,
    *,
    activation: str | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    """The expression in the code of models; their weights lie in conv1d's order."""
    channels, taps = filter.shape
    rows = x if layout == "bdl" else x.transpose(1, 2)
    if mode == "causal":
        y = functional.conv1d(rows, filter[:, None], bias, padding=taps - 1, groups=channels)
        y = y[..., : rows.shape[-1]]
    else:
        ends = (taps - 1 - taps // 2, taps // 2) if mode.endswith("centered") else (taps - 1, 0)
        padded = functional.pad(rows, ends, mode="circular" if "circular" in mode else "constant")
        y = functional.conv1d(padded, filter[:, None], bias, groups=channels)
    if activation is not None:
        y = functional.silu(y) if activation == "silu" else functional.gelu(y)
    return y if layout == "bdl" else y.transpose(1, 2)


def eager_gated(
    z: Tensor, filter: Tensor, bias: Tensor, *, mode: str = "causal", layout: str = "bld"
) -> tuple[Tensor, Tensor]:
    x0, x1, v = eager(z, filter, bias, mode=mode, layout=layout).chunk(3, 1 if layout == "bdl" else 2)
    return x0, x1 * v


class Copy(torch.autograd.Function):
    """The bytes of the kernels, and nothing right in them."""

    @staticmethod
    def forward(ctx, x: Tensor, filter: Tensor, bias: Tensor, streams: int) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, filter, bias)
        ctx.streams = streams
        return _copy([*x.view(streams, -1)], 2 if streams == 3 else 1)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Any, ...]:  # type: ignore[no-untyped-def]
        x, filter, bias = ctx.saved_tensors
        read = [*(grad.view(-1) for grad in grads), *x.view(ctx.streams, -1)]
        _copy(read, ctx.streams)
        return x, filter, bias, None


def copy(x: Tensor, filter: Tensor, bias: Tensor, **options: Any) -> Tensor:
    (y,) = Copy.apply(x, filter, bias, 1)  # type: ignore[no-untyped-call]
    out: Tensor = y.view(x.shape)
    return out


def copy_gated(z: Tensor, filter: Tensor, bias: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    x0, u = Copy.apply(z, filter, bias, 3)  # type: ignore[no-untyped-call]
    return x0, u


SHORT_CONV = Op(
    name="short_conv",
    inputs=inputs,
    options=options,
    contestants={"equiconv": equiconv.short_conv, "eager": eager, "copy": copy},
    reference=reference.short_conv,
)
SHORT_CONV_GATED = Op(
    name="short_conv_gated",
    inputs=inputs,
    options=options,
    contestants={"equiconv": equiconv.short_conv_gated, "eager": eager_gated, "copy": copy_gated},
    reference=reference.short_conv_gated,
)

# ---- the promises ------------------------------------------------------------------------------------------

THREADS = 2
PLAIN = ShortCase(batch=4, length=4096, channels=512)  # 32 MB a tensor
ROWS = replace(PLAIN, layout="bdl")
ACTIVATED = replace(PLAIN, activation="silu")
GATED = replace(PLAIN, op="short_conv_gated", channels=256)  # z has 48 MB
GATED_ROWS = replace(GATED, layout="bdl")
CASES = (PLAIN, ROWS, ACTIVATED, GATED, GATED_ROWS)


def times(baseline: str, direction: str, *, inverse: bool = False) -> Callable[[Results], Iterator[Point]]:
    """How many times as long the baseline takes as equiconv; inverse: equiconv as the baseline."""

    def points(results: Results) -> Iterator[Point]:
        for case in CASES:
            timed = replace(case, direction=direction)
            value = ratio(results, timed, baseline)
            yield 1 / value if inverse else value, timed

    return points


PROMISES = (
    Promise("forward: 3 times as fast as eager", 3.0, times("eager", "forward"), True),
    Promise("forward and backward: 3 times as fast as eager", 3.0, times("eager", "backward"), True),
    Promise(
        "forward: within 1.3 times a copy of the same bytes",
        1.3,
        times("copy", "forward", inverse=True),
        False,
    ),
    Promise(
        "forward and backward: within 1.3 times a copy of the same bytes",
        1.3,
        times("copy", "backward", inverse=True),
        False,
    ),
)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns."""
    return [
        [Entry(replace(case, direction=direction), name) for name in ("equiconv", "eager", "copy")]
        for direction in DIRECTIONS
        for case in CASES
    ]
