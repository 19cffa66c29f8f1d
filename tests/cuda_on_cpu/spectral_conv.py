"""spectral_conv by its CUDA launchers: as csrc/ops/spectral_conv.cpp calls them."""

from __future__ import annotations

import ctypes as c
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .device import DTYPES, Device
from .fft_conv_cases import Array, arrays, launched


class SpectralConv(c.Structure):
    """equiconv::SpectralConv of csrc/spectral_conv.h."""

    _fields_ = [
        *((name, c.c_int64) for name in ("batch", "channels", "length")),
        *((name, c.c_bool) for name in ("shared", "complex")),
    ]


ARGUMENTS = ("x", "spectrum", "pre_gate", "post_gate", "skip")
Forward = arrays(*ARGUMENTS, "y")
Backward = arrays("grad_out", *ARGUMENTS, *(f"grad_{name}" for name in ARGUMENTS))


def spectral_conv(
    device: Device,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    grad_out: Tensor,
    wanted: Collection[str] | None = None,
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order; NaN where it is not `wanted` (all are)."""
    x, spectrum, position = tensors["x"], tensors["spectrum"], 2 if options["layout"] == "bdl" else 1
    signal = {3: (0, 3 - position, position), 1: (None, 0, None)}
    spectra = {3: (0, 1, 2), 2: (None, 0, 1)}

    def array(name: str, tensor: Tensor, pointer: int) -> Array:
        """Strides of complex tensors count their entries, as torch's do."""
        axes = (spectra if name.endswith("spectrum") else signal)[tensor.dim()]
        strides = [0 if axis is None else tensor.stride(axis) for axis in axes]
        return Array(
            c.c_void_p(pointer), DTYPES[str(tensor.dtype.to_real()).removeprefix("torch.")], *strides
        )

    results = {"y": torch.empty(x.shape, dtype=x.dtype)}
    results |= {f"grad_{name}": torch.empty(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    for result in results.values():
        result.fill_(complex(math.nan, math.nan) if result.is_complex() else math.nan)
    given = {n: array(n, t, device.upload(t, n)) for n, t in {**tensors, "grad_out": grad_out}.items()}
    places = {n: device.upload(t, n) for n, t in results.items()}
    written = {n: array(n, t, places[n]) for n, t in results.items()}

    size = SpectralConv(
        *(x.shape[0], x.shape[3 - position], x.shape[position]), spectrum.dim() == 2, spectrum.is_complex()
    )
    backward = {**given, **{n: a for n, a in written.items() if n != "y"}}
    if wanted is not None:
        backward = {n: a for n, a in backward.items() if n in given or n.removeprefix("grad_") in wanted}
    del given["grad_out"]
    arguments = Forward(**given, y=written["y"]), Backward(**backward)
    return launched(device, "spectral_conv", size, arguments, results, places)
