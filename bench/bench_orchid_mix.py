"""orchid_mix against the ops that it is made of, one after another, and against the PyTorch that people
write.

All tensors that it takes; the static filter of the whole length, all other filters of 3 taps. It is timed
on a GPU (gpu_cases.py); on a CPU bench_orchid.py times the whole mixer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import equiconv
from equiconv.ops.orchid_mix import orchid_mix
from equiconv.reference.orchid_mix import orchid_mix as reference

from . import bench_conditioned_conv, bench_short_conv
from .harness import DTYPES, Case, Inputs, Op

TAPS = 3


@dataclass(frozen=True, kw_only=True)
class MixCase(Case):
    """channels: those of y. keyed: Type II."""

    op: str = "orchid_mix"
    mode: str = "circular"
    layout: str = "bld"
    keyed: bool = False

    settings: ClassVar[tuple[str, ...]] = ("op", "direction", "keyed", "layout", "dtype", "device")


def inputs(case: Case) -> Inputs:
    """Everything, scaled so that y is about as large as z."""
    assert isinstance(case, MixCase)
    channels, length = case.channels, case.length
    z = (case.batch, length, 3 * channels) if case.layout == "bld" else (case.batch, 3 * channels, length)
    shapes = {"z": z, "short_filter": (3 * channels, TAPS), "short_bias": (3 * channels,)}
    for name in ("query", "key") if case.keyed else ("query",):
        shapes |= {f"{name}_filter": (channels, TAPS), f"{name}_bias": (channels,)}
    shapes |= {"frequency_filter": (channels, TAPS), "frequency_bias": (channels,)}
    shapes |= {"filter": (channels, length), "skip": (channels,)}
    generator = torch.Generator(case.device).manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator, device=case.device) for name, shape in shapes.items()
    }
    for name in tensors.keys() & {"short_filter", "query_filter", "key_filter"}:
        tensors[name] /= math.sqrt(TAPS)
    tensors["frequency_filter"] /= TAPS * (length if case.keyed else math.sqrt(length))
    tensors["filter"] /= math.sqrt(length)
    return {name: tensor.to(DTYPES[case.dtype]) for name, tensor in tensors.items()}


def of(
    short_gated: Callable[..., Any], short: Callable[..., Tensor], conditioned: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """By such functions, one after another."""

    def mix(
        z: Tensor,
        short_filter: Tensor,
        query_filter: Tensor,
        key_filter: Tensor | None = None,
        *,
        short_bias: Tensor,
        query_bias: Tensor,
        key_bias: Tensor | None = None,
        layout: str,
        **weights: Tensor,
    ) -> Tensor:
        w = z.chunk(3, 1 if layout == "bdl" else 2)[2]
        x0, u = short_gated(z, short_filter, bias=short_bias, mode="circular", layout=layout)
        query, key = (
            None if filter is None else short(w, filter, bias=bias, mode="circular_centered", layout=layout)
            for filter, bias in ((query_filter, query_bias), (key_filter, key_bias))
        )
        return conditioned(u, query, key, post_gate=x0, layout=layout, **weights)

    return mix


ORCHID_MIX = Op(
    name="orchid_mix",
    inputs=inputs,
    options=lambda case: {"layout": case.layout},
    contestants={
        "equiconv": orchid_mix,
        "parts": of(equiconv.short_conv_gated, equiconv.short_conv, equiconv.conditioned_conv),
        # its weights lie in conv1d's order
        "eager": of(bench_short_conv.eager_gated, bench_short_conv.eager, bench_conditioned_conv.eager),
    },
    reference=reference,
    case=MixCase,
)
