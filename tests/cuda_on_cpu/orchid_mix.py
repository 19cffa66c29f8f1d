"""orchid_mix by its CUDA launchers: as csrc/ops/orchid_mix.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from . import conditioned_conv
from .conditioned_conv import ConditionedConv
from .device import DTYPES, Device
from .fft_conv_cases import Array, launched

SIGNALS = ("post_gate", "pre_gate", "x", "query", "key")  # OrchidMix::Signal; the first three are z's thirds
SHORT = ("short_filter", "short_bias", "query_filter", "query_bias", "key_filter", "key_bias")


class MixShort(c.Structure):
    _fields_ = [
        *((name, Array) for name in ("filter", "bias")),
        *((name, c.c_int64) for name in ("taps", "ahead")),
        *((name, Array) for name in ("grad_filter", "grad_bias")),
    ]


class OrchidMix(c.Structure):
    """equiconv::OrchidMix of csrc/orchid_mix.h."""

    _fields_ = [("of", MixShort * len(SIGNALS)), ("circular", c.c_bool)]


class Forward(c.Structure):
    _fields_ = [("arrays", conditioned_conv.Forward), ("mix", OrchidMix)]


class Backward(c.Structure):
    _fields_ = [("arrays", conditioned_conv.Backward), ("mix", OrchidMix)]


def orchid_mix(
    device: Device,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    grad_out: Tensor,
    wanted: Collection[str] | None = None,
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order; NaN where it is not `wanted` (all are)."""
    z, position = tensors["z"], 2 if options["layout"] == "bdl" else 1
    channels = z.shape[3 - position] // 3
    axes = {3: (0, 3 - position, position), 2: (None, 0, 1), 1: (None, 0, None)}

    def array(tensor: Tensor, pointer: int, third: int = 0) -> Array:
        strides = [0 if axis is None else tensor.stride(axis) for axis in axes[tensor.dim()]]
        pointer += third * channels * strides[1] * tensor.element_size()
        return Array(c.c_void_p(pointer), DTYPES[str(tensor.dtype).removeprefix("torch.")], *strides)

    shape = list(z.shape)
    shape[3 - position] = channels
    results = {"y": torch.empty(shape, dtype=z.dtype)}
    results |= {f"grad_{name}": torch.empty(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    given = {n: (t, device.upload(t, n)) for n, t in {**tensors, "grad_out": grad_out}.items()}
    places = {n: device.upload(torch.full_like(t, float("nan")), n) for n, t in results.items()}
    asked = {f"grad_{name}" for name in (tensors if wanted is None else wanted)}
    at = given | {n: (t, places[n]) for n, t in results.items() if n == "y" or n in asked}

    def mix(gradients: bool) -> OrchidMix:
        found = OrchidMix(circular=options["padding"] == "circular")
        for i, signal in enumerate(SIGNALS):
            name, third = ("short", i) if i < 3 else (signal, 0)
            if f"{name}_filter" not in tensors:
                continue
            taps = tensors[f"{name}_filter"].shape[1]
            short = {kind: at.get(f"{name}_{kind}") for kind in ("filter", "bias")}
            if gradients:
                short |= {f"grad_{kind}": at.get(f"grad_{name}_{kind}") for kind in ("filter", "bias")}
            places = {kind: array(*place, third) for kind, place in short.items() if place}
            found.of[i] = MixShort(taps=taps, ahead=0 if i < 3 else taps // 2, **places)
        return found

    def arrays(*names: str) -> dict[str, Array]:
        """Of the arguments of conditioned_conv: z's thirds by the names of the signals made of them."""
        found = {name: array(*at[name]) for name in names if name in at and name not in SHORT}
        for prefix in ("", "grad_"):
            if f"{prefix}z" in names and f"{prefix}z" in at:
                del found[f"{prefix}z"]
                found |= {f"{prefix}{s}": array(*at[f"{prefix}z"], i) for i, s in enumerate(SIGNALS[:3])}
        return found

    names = [name for name in tensors if name not in SHORT]
    filter = tensors.get("filter")
    size = ConditionedConv(
        *(z.shape[0], channels, z.shape[position], tensors["frequency_filter"].shape[1]),
        *(0 if filter is None else filter.shape[1], "key_filter" in tensors),
    )
    forward = Forward(conditioned_conv.Forward(**arrays(*names, "y")), mix(False))
    gradients = arrays(*names, "grad_out", *(f"grad_{name}" for name in names))
    backward = Backward(conditioned_conv.Backward(**gradients), mix(True))
    return launched(device, "orchid_mix", size, (forward, backward), results, places)
