"""implicit_filter by its CUDA launchers: as csrc/ops/implicit_filter.cpp calls them."""

from __future__ import annotations

import ctypes as c
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiconv.reference import implicit_filter as reference

from .device import DTYPES, Device
from .fft_conv_cases import Array, arrays

ARGUMENTS = {  # the axes that are batch, channel and position, as csrc/implicit_filter.h has them
    "features": (None, 1, 0),
    "first_weight": (None, 0, 1),
    "first_bias": (None, 0, None),
    "inner_weight": (0, 1, 2),
    "inner_bias": (0, 1, None),
    "output_weight": (None, 0, 1),
    "rates": (None, 0, None),
}
WEIGHTS = ("first_weight", "first_bias", "inner_weight", "inner_bias", "output_weight")
Forward = arrays(*ARGUMENTS, "filter")
Backward = arrays("grad_out", *ARGUMENTS, *(f"grad_{name}" for name in WEIGHTS))


class ImplicitFilter(c.Structure):
    """equiconv::ImplicitFilter of csrc/implicit_filter.h."""

    _fields_ = [(name, c.c_int64) for name in ("length", "features", "order", "inner", "channels")]


def launched(device: Device, tensors: Mapping[str, Tensor], grad_out: Tensor) -> dict[str, Tensor]:
    """The filter and the gradients of weights and biases."""
    results = {"filter": torch.empty(grad_out.shape, dtype=grad_out.dtype)}
    results |= {f"grad_{n}": torch.empty(tensors[n].shape, dtype=grad_out.dtype) for n in WEIGHTS}
    if 0 in (*grad_out.shape, len(tensors["first_bias"])):  # the binding launches nothing
        return {name: torch.zeros_like(result) for name, result in results.items()}

    def array(name: str, tensor: Tensor, place: int) -> Array:
        axes = ARGUMENTS.get(name.removeprefix("grad_"), (None, 0, 1))
        strides = (0 if axis is None else tensor.stride(axis) for axis in axes)
        return Array(place, DTYPES[str(tensor.dtype).removeprefix("torch.")], *strides)

    given = {**tensors, "grad_out": grad_out}
    places = {name: device.upload(tensor, name) for name, tensor in given.items()}
    places |= {name: device.upload(torch.full_like(t, math.nan), name) for name, t in results.items()}
    made = {name: array(name, tensor, places[name]) for name, tensor in (given | results).items()}
    (length, emb_dim), (layers, order) = tensors["features"].shape, tensors["inner_bias"].shape
    size = ImplicitFilter(length, emb_dim, order, layers, len(tensors["rates"]))
    for name, structure in (("implicit_filter", Forward), ("implicit_filter_backward", Backward)):
        arguments = structure(**{field: made[field] for field, _ in structure._fields_})
        assert device.launch(name, size, arguments) == 0, device.report()
    for name, tensor in results.items():
        device.download(places[name], tensor)
    device.free_all()
    return results


def implicit_filter(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor
) -> list[Tensor]:
    """The result and the gradient of every tensor; those of features and rates by the definition, as the op's
    own are."""
    results = launched(device, tensors, grad_out)
    leaves = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    buffers = [leaves[name].requires_grad_() for name in ("features", "rates")]
    of_buffers = torch.autograd.grad(reference.implicit_filter(**leaves), buffers, grad_out)
    results |= dict(zip(("grad_features", "grad_rates"), of_buffers, strict=True))
    return [results["filter"], *(results[f"grad_{name}"] for name in tensors)]
