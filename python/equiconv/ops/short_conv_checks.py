"""What ``short_conv`` asks of its arguments, in the sentences of csrc/ops/short_conv.cpp; fake kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .check import (
    FLOATING,
    HALF,
    LAYOUTS,
    MaybeTensor,
    check_floating,
    check_kind,
    name_of,
    one_of,
    require,
    text,
)
from .multilinear import Tensors

MAX_TAPS = 16
SHORT_MODES = ("causal", "centered", "circular", "circular_centered")
ACTIVATIONS = {"silu": 1, "gelu": 2}  # 0: none
OP, GATED, STEP, STATE = "short_conv", "short_conv_gated", "short_conv_step", "short_conv_state"


def _check_weights(op: str, filter: Tensor, bias: MaybeTensor, x_name: str, x: Tensor, channels: int) -> None:
    require(filter.dim() == 2, lambda: f"{op}: filter must be (D, W), but has shape {tuple(filter.shape)}")
    want = x.dtype.to_real()
    parts = "'s real parts" if x.is_complex() else ""

    def check_weight(name: str, weight: Tensor) -> None:
        or_float32 = want in HALF
        require(
            weight.dtype == want or (or_float32 and weight.dtype == torch.float32),
            lambda: (
                f"{op}: {name} must have the dtype of {x_name}{parts}, {text(want)}"
                f"{', or float32' if or_float32 else ''}, but has {text(weight.dtype)}"
            ),
        )
        require(
            weight.device == x.device,
            lambda: f"{op}: {name} must be on the device of {x_name}, {x.device}, but is on {weight.device}",
        )

    check_weight("filter", filter)
    require(
        filter.shape[0] == channels,
        lambda: f"{op}: filter must have the channels of {x_name}, {channels}, but has {filter.shape[0]}",
    )
    taps = filter.shape[1]
    require(1 <= taps <= MAX_TAPS, lambda: f"{op}: filter must have 1 to {MAX_TAPS} taps, but has {taps}")
    if bias is not None:
        check_weight("bias", bias)
        require(
            bias.dim() == 1 and bias.shape[0] == channels,
            lambda: (
                f"{op}: bias must have shape ({channels},), one for each channel of {x_name}, but has "
                f"{tuple(bias.shape)}"
            ),
        )


def _check(
    op: str,
    x_name: str,
    x: Tensor,
    filter: Tensor,
    bias: MaybeTensor,
    circular: bool,
    ahead: int,
    layout: int,
    *,
    may_be_complex: bool = False,
) -> list[int]:
    """The shape of a result."""
    in_rows = name_of(op, "layout", layout, LAYOUTS) == "bdl"
    allowed = (*FLOATING, torch.complex64, torch.complex128) if may_be_complex else FLOATING
    require(
        x.dtype in allowed,
        lambda: (
            f"{op}: {x_name} must be {one_of([text(dtype) for dtype in allowed])}, but is {text(x.dtype)}"
        ),
    )
    gated = op == GATED
    channels_of = "3D" if gated else "D"
    shape = f"(B, {channels_of}, L)" if in_rows else f"(B, L, {channels_of})"
    require(x.dim() == 3, lambda: f"{op}: {x_name} must be {shape}, but has shape {tuple(x.shape)}")
    axis = 1 if in_rows else 2
    channels = x.shape[axis]
    if gated:
        require(
            channels % 3 == 0,
            lambda: f"{op}: {x_name} must have three times as many channels as x0, but has {channels}",
        )
    _check_weights(op, filter, bias, x_name, x, channels)
    most = filter.shape[1] - 1
    require(0 <= ahead <= most, lambda: f"{op}: ahead must be 0 to {most}, but is {ahead}")
    result = list(x.shape)
    if gated:
        result[axis] = channels // 3
    return result


def _check_activation(op: str, number: int) -> None:
    require(
        0 <= number <= 2, lambda: f"{op}: activation must be 0 (None), 1 (silu) or 2 (gelu), but is {number}"
    )


def _check_gradient(
    op: str, name: str, of: str, grad: Tensor, x_name: str, x: Tensor, shape: list[int]
) -> None:
    require(
        list(grad.shape) == shape,
        lambda: f"{op}: {name} must have the shape of {of}, {tuple(shape)}, but has {tuple(grad.shape)}",
    )
    require(
        grad.dtype == x.dtype,
        lambda: f"{op}: {name} must have the dtype of {x_name}, {text(x.dtype)}, but has {text(grad.dtype)}",
    )
    require(
        grad.device == x.device,
        lambda: f"{op}: {name} must be on the device of {x_name}, {x.device}, but is on {grad.device}",
    )


def _gradients_like(arguments: Tensors, needs: Sequence[bool]) -> tuple[Tensor, ...]:
    x = arguments[0]
    assert x is not None
    return tuple(
        argument.new_empty(argument.shape) if need and argument is not None else x.new_empty(0)
        for argument, need in zip(arguments, needs, strict=True)
    )


def fake(x: Tensor, filter: Tensor, bias: MaybeTensor, *form: Any) -> Tensor:
    return x.new_empty(_check(OP, "x", x, filter, bias, *form, may_be_complex=True))


def fake_backward(
    grad_out: Tensor, x: Tensor, filter: Tensor, bias: MaybeTensor, *rest: Any
) -> tuple[Tensor, ...]:
    form, needs = rest[:-3], rest[-3:]
    shape = _check(OP, "x", x, filter, bias, *form, may_be_complex=True)
    _check_gradient(OP, "grad_out", "x", grad_out, "x", x, shape)
    return _gradients_like((x, filter, bias), needs)


def fake_activated(x: Tensor, filter: Tensor, bias: MaybeTensor, activation: int, *form: Any) -> Tensor:
    _check_activation(OP, activation)
    return x.new_empty(_check(OP, "x", x, filter, bias, *form, may_be_complex=activation == 0))


def fake_activated_backward(
    grad_out: Tensor, x: Tensor, filter: Tensor, bias: MaybeTensor, activation: int, *rest: Any
) -> tuple[Tensor, ...]:
    form, needs = rest[:-3], rest[-3:]
    shape = list(fake_activated(x, filter, bias, activation, *form).shape)
    _check_gradient(OP, "grad_out", "x", grad_out, "x", x, shape)
    return _gradients_like((x, filter, bias), needs)


def fake_gated(z: Tensor, filter: Tensor, bias: MaybeTensor, *form: Any) -> tuple[Tensor, Tensor]:
    shape = _check(GATED, "z", z, filter, bias, *form)
    return z.new_empty(shape), z.new_empty(shape)


def fake_gated_backward(
    grad_x0: Tensor, grad_u: Tensor, z: Tensor, filter: Tensor, bias: MaybeTensor, *rest: Any
) -> tuple[Tensor, ...]:
    form, needs = rest[:-3], rest[-3:]
    shape = _check(GATED, "z", z, filter, bias, *form)
    _check_gradient(GATED, "grad_x0", "x0", grad_x0, "z", z, shape)
    _check_gradient(GATED, "grad_u", "u", grad_u, "z", z, shape)
    return _gradients_like((z, filter, bias), needs)


def fake_step(
    x: Tensor, state: Tensor, filter: Tensor, bias: MaybeTensor, activation: int
) -> tuple[Tensor, Tensor]:
    _check_activation(STEP, activation)
    check_floating(STEP, "x", x)
    require(x.dim() == 2, lambda: f"{STEP}: x must be (B, D), but has shape {tuple(x.shape)}")
    _check_weights(STEP, filter, bias, "x", x, x.shape[1])
    want = (x.shape[0], x.shape[1], filter.shape[1] - 1)
    require(
        tuple(state.shape) == want,
        lambda: f"{STEP}: state must have shape {want}, (B, D, W-1), but has {tuple(state.shape)}",
    )
    check_kind(STEP, "state", state, x)
    return x.new_empty(x.shape), state.new_empty(want)
