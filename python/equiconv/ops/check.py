"""Argument checks in Python, with the sentences of csrc/ops/check.h.

Where a kernel runs, C++ checks. These are for programs that are traced, whose sizes may be symbolic, and for
ops written in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

MaybeTensor = Tensor | None

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALF = (torch.bfloat16, torch.float16)
MAX_LENGTHS = {"cuda": 1 << 22}  # by the type of device
MAX_LENGTH = 1 << 30  # of the others

# How the dispatcher ops number what has a name in Python; csrc/ops/fft_conv.cpp says why.
MODES = {"causal": 0, "bidirectional": 1, "circular": 2}
LAYOUTS = {"bdl": 0, "bld": 1}


def require(rule: bool, sentence: Callable[[], str]) -> None:
    if not rule:
        raise ValueError(sentence())


def text(word: torch.dtype | torch.layout) -> str:
    return str(word).removeprefix("torch.")


def one_of(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def number_of(op: str, argument: str, name: str, numbers: Mapping[str, int]) -> int:
    require(name in numbers, lambda: f"{op}: {argument} must be {one_of([*numbers])}, but is {name}")
    return numbers[name]


def name_of(op: str, argument: str, number: int, numbers: Mapping[str, int]) -> str:
    for name, other in numbers.items():
        if other == number:
            return name
    meaning = one_of([f"{other} ({name})" for name, other in numbers.items()])
    raise ValueError(f"{op}: {argument} must be {meaning}, but is {number}")


def check_device(op: str, name: str, tensor: Tensor, x: Tensor, *, of: str = "x") -> None:
    require(
        tensor.device == x.device,
        lambda: f"{op}: {name} must be on the device of {of}, {x.device}, but is on {tensor.device}",
    )


def refuse_elsewhere(op: str, tensors: Mapping[str, MaybeTensor]) -> NoReturn:
    """Say why no kernel takes these tensors: x, rel, z or else the first of them is on another device, or one
    is no plain strided tensor."""
    main = next((name for name in ("x", "rel", "z") if name in tensors), next(iter(tensors)))
    x = tensors[main]
    assert x is not None
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    built = [device for device in ("cpu", "cuda") if has(f"equiconv::{op}", device.upper())]
    require(
        x.device.type in built,
        lambda: (
            f"{op}: {main} must be on {one_of(built)}, for which equiconv was built, but is on {x.device}"
        ),
    )
    for name, tensor in tensors.items():
        if tensor is not None:
            check_device(op, name, tensor, x, of=main)
            kind = text(tensor.layout)
            kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else kind
            if kind != "strided":
                raise ValueError(f"{op}: {name} must be strided, but is {kind}")
    raise ValueError(f"{op}: {main} must be an ordinary tensor, but is {type(x).__name__}")


def check_kind(op: str, name: str, tensor: Tensor, x: Tensor, *, weight: bool = False, of: str = "x") -> None:
    """The dtype and device of x, which is called `of`; a weight may be float32 beside a half type."""
    or_float32 = weight and x.dtype in HALF
    require(
        tensor.dtype == x.dtype or (or_float32 and tensor.dtype == torch.float32),
        lambda: (
            f"{op}: {name} must have the dtype of {of}, {text(x.dtype)}"
            f"{', or float32' if or_float32 else ''}, but has {text(tensor.dtype)}"
        ),
    )
    check_device(op, name, tensor, x, of=of)


def check_floating(op: str, name: str, tensor: Tensor) -> None:
    require(
        tensor.dtype in FLOATING,
        lambda: (
            f"{op}: {name} must be {one_of([text(dtype) for dtype in FLOATING])}, but is {text(tensor.dtype)}"
        ),
    )


def check_x(op: str, x: Tensor, layout: str) -> tuple[int, int, int]:
    """Batch, channels and length of x."""
    number_of(op, "layout", layout, LAYOUTS)
    check_floating(op, "x", x)
    shape = "(B, D, L)" if layout == "bdl" else "(B, L, D)"
    require(x.dim() == 3, lambda: f"{op}: x must be {shape}, but has shape {tuple(x.shape)}")
    batch, channels, length = x.shape if layout == "bdl" else (x.shape[0], x.shape[2], x.shape[1])
    most = MAX_LENGTHS.get(x.device.type, MAX_LENGTH)
    require(length <= most, lambda: f"{op}: x must have at most {most} positions, but has {length}")
    return batch, channels, length


def check_signal(op: str, name: str, tensor: MaybeTensor, x: Tensor) -> None:
    """A gate or grad_out: shape, dtype and device of x."""
    if tensor is not None:
        require(
            tensor.shape == x.shape,
            lambda: f"{op}: {name} must have the shape of x, {tuple(x.shape)}, but has {tuple(tensor.shape)}",
        )
        check_kind(op, name, tensor, x)


def check_rows(op: str, name: str, weight: Tensor, batch: int, channels: int) -> None:
    """(D, …) or (B, D, …), of a weight known to have one of these ranks."""
    if weight.dim() == 3:
        require(
            weight.shape[0] == batch,
            lambda: f"{op}: {name} must have the batch of x, {batch}, but has {weight.shape[0]}",
        )
    require(
        weight.shape[-2] == channels,
        lambda: f"{op}: {name} must have the channels of x, {channels}, but has {weight.shape[-2]}",
    )


def check_skip(op: str, skip: MaybeTensor, x: Tensor, channels: int, name: str = "skip") -> None:
    if skip is not None:
        check_kind(op, name, skip, x, weight=True)
        require(
            skip.dim() == 1 and skip.shape[0] == channels,
            lambda: (
                f"{op}: {name} must have shape ({channels},), one for each channel of x, "
                f"but has {tuple(skip.shape)}"
            ),
        )
