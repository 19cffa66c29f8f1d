"""conditioned_conv by its CUDA launchers: as csrc/ops/conditioned_conv.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .device import DTYPES, Device
from .fft_conv_cases import Array, arrays, launched


class ConditionedConv(c.Structure):
    """equiconv::ConditionedConv of csrc/conditioned_conv.h."""

    _fields_ = [
        *((name, c.c_int64) for name in ("batch", "channels", "length", "width", "taps")),
        ("keyed", c.c_bool),
    ]


ARGUMENTS = (
    *("x", "query", "key", "frequency_filter", "frequency_bias", "filter"),
    *("pre_gate", "post_gate", "skip"),
)
Forward = arrays(*ARGUMENTS, "y")
Backward = arrays("grad_out", *ARGUMENTS, *(f"grad_{name}" for name in ARGUMENTS))


def conditioned_conv(
    device: Device,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    grad_out: Tensor,
    wanted: Collection[str] | None = None,
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order; NaN where it is not `wanted` (all are)."""
    x, position = tensors["x"], 2 if options["layout"] == "bdl" else 1
    axes = {3: (0, 3 - position, position), 2: (None, 0, 1), 1: (None, 0, None)}

    def array(tensor: Tensor, pointer: int) -> Array:
        strides = [0 if axis is None else tensor.stride(axis) for axis in axes[tensor.dim()]]
        return Array(c.c_void_p(pointer), DTYPES[str(tensor.dtype).removeprefix("torch.")], *strides)

    results = {"y": torch.empty(x.shape, dtype=x.dtype)}
    results |= {f"grad_{name}": torch.empty(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    given = {n: array(t, device.upload(t, n)) for n, t in {**tensors, "grad_out": grad_out}.items()}
    places = {n: device.upload(torch.full_like(t, float("nan")), n) for n, t in results.items()}
    written = {n: array(t, places[n]) for n, t in results.items()}

    frequency_filter, filter = tensors["frequency_filter"], tensors.get("filter")
    size = ConditionedConv(
        *(x.shape[0], x.shape[3 - position], x.shape[position], frequency_filter.shape[1]),
        *(0 if filter is None else filter.shape[1], "key" in tensors),
    )
    backward = {**given, **{n: a for n, a in written.items() if n != "y"}}
    if wanted is not None:
        backward = {n: a for n, a in backward.items() if n in given or n.removeprefix("grad_") in wanted}
    del given["grad_out"]
    arguments = Forward(**given, y=written["y"]), Backward(**backward)
    return launched(device, "conditioned_conv", size, arguments, results, places)
