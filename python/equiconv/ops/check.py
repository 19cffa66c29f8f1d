"""Argument checks in Python, with the sentences of csrc/ops/check.h.

Where a kernel runs, C++ checks. These are for programs that are traced (sizes may be symbolic then) and for
ops written in Python.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MaybeTensor = Tensor | None

_MAX_LENGTH = 1 << 30
_FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_HALF = (torch.bfloat16, torch.float16)


def require(rule: Any, sentence: str) -> None:
    torch._check_value(rule, lambda: sentence)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_kind(op: str, name: str, tensor: Tensor, x: Tensor, *, weight: bool = False) -> None:
    """`tensor` has the dtype of x (a weight beside a half type: or float32) and is on its device."""
    or_float32 = weight and x.dtype in _HALF
    require(
        tensor.dtype == x.dtype or (or_float32 and tensor.dtype == torch.float32),
        f"{op}: {name} must have the dtype of x, {name_of(x.dtype)}{', or float32' if or_float32 else ''}, "
        f"but has {name_of(tensor.dtype)}",
    )
    require(
        tensor.device == x.device,
        f"{op}: {name} must be on the device of x, {x.device}, but is on {tensor.device}",
    )


def check_signal(op: str, name: str, tensor: MaybeTensor, x: Tensor) -> None:
    """A gate or grad_out: shape, dtype and device of x."""
    if tensor is not None:
        require(
            tensor.shape == x.shape,
            f"{op}: {name} must have the shape of x, {tuple(x.shape)}, but has {tuple(tensor.shape)}",
        )
        check_kind(op, name, tensor, x)


def check_x(op: str, x: Tensor, layout: str) -> tuple[int, int, int]:
    """Batch, channels and length of x."""
    require(layout in ("bdl", "bld"), f"{op}: layout must be bdl or bld, but is {layout}")
    require(
        x.dtype in _FLOATING,
        f"{op}: x must be float32, float64, bfloat16 or float16, but is {name_of(x.dtype)}",
    )
    shape = "(B, D, L)" if layout == "bdl" else "(B, L, D)"
    require(x.dim() == 3, f"{op}: x must be {shape}, but has shape {tuple(x.shape)}")
    batch, channels, length = x.shape if layout == "bdl" else (x.shape[0], x.shape[2], x.shape[1])
    require(length <= _MAX_LENGTH, f"{op}: x must have at most {_MAX_LENGTH} positions, but has {length}")
    return batch, channels, length


def check_weight_shape(op: str, name: str, weight: Tensor, batch: int, channels: int) -> None:
    """Channels of x, and its batch if there is one weight for each sample."""
    if weight.dim() == 3:
        require(
            weight.shape[0] == batch,
            f"{op}: {name} must have the batch of x, {batch}, but has {weight.shape[0]}",
        )
    require(
        weight.shape[-2] == channels,
        f"{op}: {name} must have the channels of x, {channels}, but has {weight.shape[-2]}",
    )


def check_skip(op: str, skip: MaybeTensor, x: Tensor, channels: int) -> None:
    if skip is not None:
        check_kind(op, "skip", skip, x, weight=True)
        require(
            skip.dim() == 1 and skip.shape[0] == channels,
            f"{op}: skip must have shape ({channels},), one for each channel of x, but has {tuple(skip.shape)}",
        )
