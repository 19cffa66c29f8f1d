"""gate by its CUDA launchers, for the tests' contract: as csrc/ops/gate.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiconv.ops.gate import NUMBERS

from .device import DTYPES, Device

AXES = 16


class Gate(c.Structure):
    """equiconv::Gate of csrc/gate.h, as those below."""

    _fields_ = [
        ("axes", c.c_int32),
        ("channel", c.c_int32),
        ("size", c.c_int64 * AXES),
        ("activation", c.c_int8),
        ("order", c.c_int32),
    ]


class GateArray(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int8), ("stride", c.c_int64 * AXES)]


class GateVector(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int8), ("stride", c.c_int64)]


class GateForward(c.Structure):
    _fields_ = [
        *((name, GateArray) for name in ("x", "gate")),
        *((name, GateVector) for name in ("bias", "gate_bias")),
        ("y", GateArray),
    ]


class GateBackward(c.Structure):
    _fields_ = [
        *((name, GateArray) for name in ("grad_out", "x", "gate")),
        *((name, GateVector) for name in ("bias", "gate_bias")),
        *((name, GateArray) for name in ("grad_x", "grad_gate")),
        *((name, GateVector) for name in ("grad_bias", "grad_gate_bias")),
    ]


def gate(
    device: Device,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    grad_out: Tensor,
    *,
    order: int = 0,
    wanted: tuple[str, ...] | None = None,
) -> list[Tensor]:
    """The result, and the gradient of every tensor, or of those wanted, in their order."""
    x = tensors["x"]
    channel = options["dim"] % x.dim()
    wanted = tuple(tensors) if wanted is None else wanted
    gradients = {
        f"grad_{name}": torch.zeros(tensors[name].shape, dtype=tensors[name].dtype) for name in wanted
    }
    y = torch.empty(grad_out.shape, dtype=x.dtype)
    if y.numel() == 0:  # the binding launches nothing
        return [y, *gradients.values()]

    results = {"y": y, **gradients}
    given = {**tensors, "grad_out": grad_out}
    places = {name: device.upload(tensor, name) for name, tensor in given.items()}
    places |= {name: device.upload(torch.full_like(t, float("nan")), name) for name, t in results.items()}
    arrays: dict[str, c.Structure] = {}
    for name, tensor in (given | results).items():
        dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
        if name.endswith("bias"):
            arrays[name] = GateVector(places[name], dtype, tensor.stride(0))
            continue
        stride = (c.c_int64 * AXES)(*tensor.stride())
        arrays[name] = GateArray(places[name], dtype, stride)
        if "gate" not in tensors and name.endswith("x"):
            half = grad_out.shape[channel] * tensor.stride(channel) * tensor.itemsize
            arrays[name.replace("x", "gate")] = GateArray(places[name] + half, dtype, stride)

    size = Gate(
        x.dim(),
        channel,
        (c.c_int64 * AXES)(*grad_out.shape),
        NUMBERS[options["activation"]],
        order,
    )
    biased = "bias" in tensors or "gate_bias" in tensors
    if not biased:  # the binding joins all axes then; here the last one stands for the channels
        size.channel = x.dim() - 1
    for kind, structure in (("forward", GateForward), ("backward", GateBackward)):
        fields = [name for name, _ in structure._fields_]
        arguments = structure(**{name: arrays[name] for name in fields if name in arrays})
        ask = getattr(device.lib, f"gate_{kind}_workspace")
        ask.restype = c.c_int64
        workspace = device.allocate(ask(c.byref(size), c.byref(arguments)), "workspace")
        error = getattr(device.lib, f"gate_{kind}")(c.byref(size), c.byref(arguments), workspace)
        assert error == 0, device.report()
        device.free(workspace)
    for name, tensor in results.items():
        device.download(places[name], tensor)
    device.free_all()
    return list(results.values())
