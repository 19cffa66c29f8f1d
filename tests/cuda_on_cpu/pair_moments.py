"""pair_moments by its CUDA launchers, for the tests' contract: as csrc/ops/pair_moments.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .device import Device
from .pair_cases import PairGroups, PairMessage, Rows, launch
from .pair_message import dtype_of, groups, rows


class Moments(c.Structure):
    """equiconv::Moments of csrc/pair_moments.h, as those below."""

    _fields_ = [
        ("data", c.c_void_p),
        ("dtype", c.c_int8),
        *((name, c.c_int64) for name in ("row", "orientation", "function", "channel")),
    ]


class PairMoments(c.Structure):
    _fields_ = [("pairs", PairGroups), ("x", Rows), ("basis", Rows), ("out", Moments)]


class PairMomentsGradients(c.Structure):
    _fields_ = [
        *((name, PairGroups) for name in ("by_receiver", "by_sender")),
        ("grad_out", Moments),
        *((name, Rows) for name in ("x", "basis", "grad_x", "grad_basis")),
    ]


def moments(tensor: Tensor, pointer: int) -> Moments:
    orientation = tensor.stride(1) if tensor.dim() == 4 else 0
    strides = tensor.stride(0), orientation, tensor.stride(-2), tensor.stride(-1)
    return Moments(c.c_void_p(pointer), dtype_of(tensor), *strides)


def pair_moments(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order."""
    x, basis = tensors["x"], tensors["basis"]
    graph = options["graph"]
    size = PairMessage(
        *(graph.num_pairs, graph.num_senders, graph.num_receivers),
        *(x.shape[1] if x.dim() == 3 else 1, basis.shape[-1], x.shape[-1], basis.dim() == 2, False),
    )
    results = {"out": torch.zeros(grad_out.shape, dtype=x.dtype)}
    results |= {f"grad_{name}": torch.zeros(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    if min(size.pairs, size.orientations, size.functions, size.channels) == 0:
        return list(results.values())  # the binding launches nothing

    given = {n: rows(t, device.upload(t, n)) for n, t in tensors.items()}
    gradient = moments(grad_out, device.upload(grad_out, "grad_out"))
    places = {n: device.upload(torch.full_like(t, float("nan")), n) for n, t in results.items()}
    by_receiver, by_sender = groups(device, graph.by_receiver), groups(device, graph.by_sender)
    both = given["x"], given["basis"]
    written = rows(results["grad_x"], places["grad_x"]), rows(results["grad_basis"], places["grad_basis"])

    out = moments(results["out"], places["out"])
    launch(device, "pair_moments", size, PairMoments(by_receiver, *both, out))
    gradients = PairMomentsGradients(by_receiver, by_sender, gradient, *both, *written)
    launch(device, "pair_moments_gradients", size, gradients)
    for name, tensor in results.items():
        device.download(places[name], tensor)
    device.free_all()
    return list(results.values())
