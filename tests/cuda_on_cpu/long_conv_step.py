"""long_conv_step by its CUDA launchers: as csrc/ops/long_conv_step.cpp calls them."""

from __future__ import annotations

import ctypes as c
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equiconv.nn.long_conv_state import widest_square
from equiconv.ops.long_conv_step import BLOCK, padded

from .device import DTYPES, Device
from .fft_conv_cases import Array

PRODUCTS = 256  # kWidestOfProducts


class StepFilter(c.Structure):
    """equiconv::StepFilter of csrc/long_conv_step.h."""

    _fields_ = [(name, c.c_int64) for name in ("channels", "widest")]

    def values(self, dtype: torch.dtype) -> int:
        """As values_on_cuda."""
        rows = 2 * self.widest if self.widest > PRODUCTS else 0
        first = max(BLOCK, 2 * min(self.widest, PRODUCTS))
        return int(padded(self.channels, dtype) * first + self.channels * rows)


class LongConvStep(c.Structure):
    _fields_ = [
        ("filter", StepFilter),
        *((name, c.c_int64) for name in ("batch", "samples", "channels", "tokens", "position", "rows")),
    ]


class StepTaps(c.Structure):
    _fields_ = [("taps", Array), ("count", c.c_int64), ("prepared", c.c_void_p)]


class Tensors(c.Structure):
    _fields_ = [
        *((name, Array) for name in ("x", "pre_gate", "post_gate", "y")),
        ("dtype", c.c_int8),
        ("buffer", c.c_void_p),
        ("filter", c.c_void_p),
    ]


class State:
    """What a decoder keeps on a device; filter: (D, Lf) or (B, D, Lf)."""

    def __init__(self, device: Device, filter: Tensor, batch: int, length: int) -> None:
        self.device = device
        self.samples = batch if filter.dim() == 3 else 1
        self.rows = -(-length // BLOCK) * BLOCK
        self.dtype = filter.dtype
        taps = filter.flatten(0, -2)
        self.size = StepFilter(len(taps), widest_square(taps.shape[1], length))
        self.shape = (batch // self.samples, self.rows, padded(len(taps), self.dtype))
        self.buffer = device.upload(torch.zeros(self.shape, dtype=self.dtype), "the buffer")
        self.filter = device.upload(torch.zeros(self.size.values(self.dtype), dtype=self.dtype), "the filter")
        rows = self._array(taps, device.upload(taps, "taps"), (None, 0, 1))
        given = StepTaps(rows, taps.shape[1], self.filter)
        assert device.launch("long_conv_step_filter", self.size, given) == 0, device.report()

    def step(
        self, x: Tensor, position: int, pre_gate: Tensor | None = None, post_gate: Tensor | None = None
    ) -> Tensor:
        y = torch.full(x.shape, math.nan, dtype=x.dtype)
        place = self.device.upload(y, "y")
        signals = {"x": x, "pre_gate": pre_gate, "post_gate": post_gate}
        arrays = {
            name: self._array(t, self.device.upload(t, name), (0, 2, 1))
            for name, t in signals.items()
            if t is not None
        }
        self._launch(x.shape[1], x.shape[2], position, y=self._array(y, place, (0, 2, 1)), **arrays)
        self.device.download(place, y)
        return y

    def square(self, position: int) -> None:
        self._launch(0, self.size.channels, position)

    def kept(self) -> Tensor:
        """The buffer, (B, rows, D)."""
        kept = torch.empty(self.shape, dtype=self.dtype)
        self.device.download(self.buffer, kept)
        return kept[..., : self.size.channels]

    def _launch(self, tokens: int, channels: int, position: int, **arrays: Array) -> None:
        size = LongConvStep(self.size, self.shape[0], self.samples, channels, tokens, position, self.rows)
        dtype = DTYPES[str(self.dtype).removeprefix("torch.")]
        given = Tensors(dtype=dtype, buffer=self.buffer, filter=self.filter, **arrays)
        assert self.device.launch("long_conv_step", size, given) == 0, self.device.report()

    @staticmethod
    def _array(tensor: Tensor, pointer: int, axes: Sequence[int | None]) -> Array:
        dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
        return Array(c.c_void_p(pointer), dtype, *(0 if i is None else tensor.stride(i) for i in axes))


def long_conv_step(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor | None = None
) -> list[Tensor]:
    """The result for all tokens, which come in `sizes`, the last of them again and again."""
    x, filter = tensors["x"], tensors["filter"]
    state = State(device, filter, x.shape[0], x.shape[1])
    parts, position, sizes = [], 0, list(options["sizes"])
    while position < x.shape[1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        part = slice(position, position + size)
        gates = {name: tensors[name][:, part] for name in ("pre_gate", "post_gate") if name in tensors}
        parts.append(state.step(x[:, part], position, **gates))
        position += size
    device.free_all()
    return [torch.cat(parts, 1)]
