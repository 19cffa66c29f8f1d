"""The steps of a causal long convolution, which :class:`equiconv.nn.LongConvDecoder` takes.

They write into a buffer, so nothing is differentiated through them. Behind the position it holds inputs,
ahead of it sums; its rows are positions, a multiple of `BLOCK`, and its channels are `padded`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registration import register_without_derivatives

BLOCK = 64  # as kBlock in csrc/long_conv_step.h
_WIDEST_OF_PRODUCTS = 256  # as kWidestOfProducts
_LINE = 64  # as kLineBytes

# step(x, pre_gate, post_gate, buffer, filter, widest, position) -> y: T tokens (B, T, D), of which the first
#   has this position, which is known on the host: a captured CUDA graph has the positions of its capture.
#   buffer: (B, rows, padded(D)), or where each sample has a filter (1, rows, padded(B D)).
# square(buffer, filter, channels, widest, position): what the block that ends at `position` brings to as many
#   positions ahead, as step does by itself; for blocks that were convolved otherwise.
# prepare(taps, widest) -> filter: of (D, Lf), or (B D, Lf), in an order of the kernels' own. widest: the
#   widest square, a power of two from BLOCK on, or 0 where the buffer has one block.
step = torch.ops.equiconv.long_conv_step.default
square = torch.ops.equiconv.long_conv_step_square.default
prepare = torch.ops.equiconv.long_conv_step_filter.default


def padded(channels: int, dtype: torch.dtype) -> int:
    """The channels of a buffer: an odd number of whole lines of a cache, as StepFilter::pitch."""
    lanes = _LINE // dtype.itemsize
    return (-(-channels // lanes) | 1) * lanes


def _fake_step(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_square(*_: Any) -> None:
    return None


def _fake_prepare(taps: Tensor, widest: int) -> Tensor:
    channels = taps.shape[0]
    pitch = padded(channels, taps.dtype)
    if taps.device.type == "cuda":
        rows = 2 * widest if widest > _WIDEST_OF_PRODUCTS else 0
        return taps.new_empty(pitch * max(BLOCK, 2 * min(widest, _WIDEST_OF_PRODUCTS)) + channels * rows)
    points = 2 * widest - BLOCK if widest else 0
    return taps.new_empty(6 * widest + pitch * (BLOCK + 2 * points))


_OP = "long_conv_step"
_SIGNALS = ("x", "pre_gate", "post_gate", "buffer", "filter")
register_without_derivatives(step, _OP, _SIGNALS, _fake_step)
register_without_derivatives(square, _OP, ("buffer", "filter"), _fake_square)
register_without_derivatives(prepare, _OP, ("taps",), _fake_prepare)
