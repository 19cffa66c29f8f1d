"""short_conv and its other forms by their CUDA launchers: as csrc/ops/short_conv.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .device import DTYPES, Device
from .fft_conv_cases import Array, arrays

EPILOGUES = {None: 0, "silu": 1, "gelu": 2, "gated": 3}


class ShortConv(c.Structure):
    """equiconv::ShortConv of csrc/short_conv.h."""

    _fields_ = [
        *((name, c.c_int64) for name in ("batch", "channels", "length")),
        *((name, c.c_int) for name in ("taps", "ahead", "parts")),
        ("circular", c.c_bool),
        ("epilogue", c.c_int8),
    ]


Forward = arrays("x", "filter", "bias", "y", "product")
Backward = arrays(
    *("grad_out", "grad_product", "x", "filter", "bias"), *("grad_x", "grad_filter", "grad_bias")
)
Step = arrays("x", "state", "filter", "bias", "y", "next")


def array(tensor: Tensor, pointer: int, axes: tuple[int | None, int | None, int | None]) -> Array:
    """axes: those of batch, channel and position. Strides of complex tensors count their parts."""
    parts = 2 if tensor.is_complex() else 1
    dtype = str(tensor.dtype.to_real()).removeprefix("torch.")
    strides = [0 if axis is None else tensor.stride(axis) * parts for axis in axes]
    return Array(c.c_void_p(pointer), DTYPES[dtype], *strides)


def launch(device: Device, kind: str, size: ShortConv, arguments: c.Structure) -> None:
    assert device.launch(f"short_conv_{kind}", size, arguments) == 0, device.report()


def short_conv(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order; of `z` x0 and u, stacked, as grad_out."""
    gated = "z" in tensors
    names = {"z": "x"}
    tensors = {names.get(name, name): tensor for name, tensor in tensors.items()}
    x, filter = tensors["x"], tensors["filter"]
    position = 2 if options["layout"] == "bdl" else 1
    signal = (0, 3 - position, position)
    axes_of = {"filter": (None, 0, 1), "bias": (None, 0, None)}

    def place(name: str, tensor: Tensor, pointer: int) -> Array:
        return array(tensor, pointer, axes_of.get(name.removeprefix("grad_"), signal))

    results = {"y": torch.zeros(grad_out.shape, dtype=x.dtype)}
    results |= {f"grad_{name}": torch.zeros(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    if x.numel() == 0:  # the binding launches nothing
        return list(results.values())

    apart = {"y": results["y"]} if not gated else dict(zip(("y", "product"), results["y"], strict=True))
    written = {**apart, **{name: t for name, t in results.items() if name != "y"}}
    grads = {"grad_out": grad_out} if not gated else {"grad_out": grad_out[0], "grad_product": grad_out[1]}
    given = {n: place(n, t, device.upload(t, n)) for n, t in {**tensors, **grads}.items()}
    places = {n: device.upload(torch.full_like(t, float("nan")), n) for n, t in written.items()}
    outputs = {n: place(n, t, places[n]) for n, t in written.items()}

    mode, taps = options["mode"], filter.shape[1]
    channels = x.shape[3 - position] // (3 if gated else 1)
    size = ShortConv(
        *(x.shape[0], channels, x.shape[position], taps),
        *(taps // 2 if mode.endswith("centered") else 0, 2 if x.is_complex() else 1),
        mode.startswith("circular"),
        EPILOGUES["gated" if gated else options.get("activation")],
    )
    forward = {n: a for n, a in (given | outputs).items() if n in Forward.names}
    backward = {n: a for n, a in (given | outputs).items() if n in Backward.names}
    launch(device, "forward", size, Forward(**forward))
    launch(device, "backward", size, Backward(**backward))
    for name, tensor in written.items():
        device.download(places[name], tensor)
    device.free_all()
    return list(results.values())


def short_conv_step(
    device: Device,
    x: Tensor,
    state: Tensor,
    filter: Tensor,
    *,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """y and the next state."""
    axes = {
        **dict.fromkeys(("x", "y"), (0, 1, None)),
        **dict.fromkeys(("state", "next"), (0, 1, 2)),
        "filter": (None, 0, 1),
        "bias": (None, 0, None),
    }
    tensors = {"x": x, "state": state, "filter": filter, **({} if bias is None else {"bias": bias})}
    results = {"y": torch.full(x.shape, float("nan"), dtype=x.dtype)}
    results["next"] = torch.full(state.shape, float("nan"), dtype=x.dtype)
    pointers = {name: device.upload(t, name) for name, t in {**tensors, **results}.items()}
    arrays = {n: array(t, pointers[n], axes[n]) for n, t in {**tensors, **results}.items()}
    size = ShortConv(*x.shape, 1, filter.shape[1], 0, 1, False, EPILOGUES[activation])
    launch(device, "step", size, Step(**arrays))
    for name, tensor in results.items():
        device.download(pointers[name], tensor)
    device.free_all()
    return results["y"], results["next"]
