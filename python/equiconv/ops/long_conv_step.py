"""What the dispatcher learns of the steps of a causal long convolution; :class:`equiconv.nn.LongConvDecoder` is
how they are used. The buffer is written in place, so nothing is differentiated through them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registration import _library

step = torch.ops.equiconv.long_conv_step.default
square = torch.ops.equiconv.long_conv_step_square.default
prepare = torch.ops.equiconv.long_conv_step_filter.default

BLOCK = 64  # kBlock
LINE = 64  # kLineBytes


def padded(channels: int, dtype: torch.dtype) -> int:
    """Channels in whole lines, an odd number of them: positions that lie a power of two of bytes apart would
    meet in the same places of a cache."""
    lanes = LINE // dtype.itemsize
    return (-(-channels // lanes) | 1) * lanes


def _step(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _square(*_: Any) -> None:
    return None


def _prepare(taps: Tensor, widest: int) -> Tensor:
    lanes = LINE // taps.dtype.itemsize
    channels = -(-taps.shape[0] // lanes) * lanes
    points = 2 * widest - BLOCK if widest else 0
    return taps.new_empty(6 * widest + channels * (BLOCK + 2 * points))


for _op, _fake in ((step, _step), (square, _square), (prepare, _prepare)):
    torch.library.register_fake(_op.name(), _fake, lib=_library)
    _library.impl(_op, torch.library.fallthrough_kernel, "Autograd")  # type: ignore[no-untyped-call]
