"""fft_conv by its CUDA launchers, for the tests' contract: as csrc/ops/fft_conv.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .device import DTYPES, Device
from .fft_conv_cases import MODES, Array, Backward, FftConv, Forward, launched


def fft_conv(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order."""
    x, filter = tensors["x"], tensors["filter"]
    position = 2 if options["layout"] == "bdl" else 1
    axes = {3: (0, 3 - position, position), 2: (None, 0, 1), 1: (None, 0, None)}

    def array(tensor: Tensor, pointer: int, name: str) -> Array:
        filters = tensor.dim() == 3 and name.endswith("filter")
        strides = [
            0 if axis is None else tensor.stride(axis)
            for axis in ((0, 1, 2) if filters else axes[tensor.dim()])
        ]
        return Array(c.c_void_p(pointer), DTYPES[str(tensor.dtype).removeprefix("torch.")], *strides)

    y = torch.empty(x.shape, dtype=x.dtype)
    gradients = [torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in tensors.values()]
    if x.numel() == 0:  # the binding launches nothing
        return [y, *gradients]

    given = {
        name: array(tensor, device.upload(tensor, name), name)
        for name, tensor in {**tensors, "grad_out": grad_out}.items()
    }
    results = {"y": y} | {f"grad_{name}": g for name, g in zip(tensors, gradients, strict=True)}
    places = {name: device.upload(torch.full_like(t, float("nan")), name) for name, t in results.items()}
    written = {name: array(tensor, places[name], name) for name, tensor in results.items()}

    size = FftConv(
        *(x.shape[0], x.shape[3 - position], x.shape[position], filter.shape[-1]),
        *(MODES[options["mode"]], filter.dim() == 2),
    )
    arrays_of_backward = {name: a for name, a in (given | written).items() if name != "y"}
    del given["grad_out"]
    arguments = Forward(**given, y=written["y"]), Backward(**arrays_of_backward)
    return launched(device, "fft_conv", size, arguments, results, places)
