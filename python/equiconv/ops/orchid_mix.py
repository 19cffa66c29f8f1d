"""``orchid_mix``: all of Orchid's mixer that is between its projections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .check import (
    HALF,
    LAYOUTS,
    MAX_LENGTH,
    MAX_LENGTHS,
    MaybeTensor,
    check_floating,
    name_of,
    number_of,
    require,
    text,
)
from .conditioned_conv import conditioned
from .multilinear import ClosedOp, Tensors, total
from .short_conv_checks import MAX_TAPS
from .short_conv_derivatives import gated, linear

__all__ = ["orchid_mix"]


def orchid_mix(
    z: Tensor,
    short_filter: Tensor,
    query_filter: Tensor,
    key_filter: Tensor | None = None,
    *,
    frequency_filter: Tensor,
    short_bias: Tensor | None = None,
    query_bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    frequency_bias: Tensor | None = None,
    filter: Tensor | None = None,
    skip: Tensor | None = None,
    padding: str = "circular",
    layout: str = "bld",
) -> Tensor:
    r"""Short convolutions of three streams, and of them Orchid's data-dependent convolution, in one pass.

    .. math:: (x_0, x_1, v) = \text{short\_filter} * z + \text{short\_bias}, \qquad
              y = \mathrm{conditioned\_conv}(v, q, k; \text{pre\_gate} = x_1, \text{post\_gate} = x_0)

    .. math:: q = \text{query\_filter} * w + \text{query\_bias}, \qquad
              k = \text{key\_filter} * w + \text{key\_bias}

    where w is the last third of z's channels, and what conditioned_conv makes of them, frequency_filter,
    frequency_bias, filter and skip is in :func:`equiconv.conditioned_conv`: Type I without a key_filter, else
    Type II.

    Args:
        z: (B, L, 3D), or (B, 3D, L) with ``layout="bdl"``: the channels of x0, then x1's, then v's. float32,
            float64, bfloat16 or float16.
        short_filter: (3D, W), tap j at lag j. This and all other weights: of the dtype of z, or float32
            beside a half type. W from 1 to 16, in every filter its own; it may exceed L.
        query_filter, key_filter: (D, W), tap j at lag j - W // 2.
        frequency_filter: (D, W).
        short_bias, query_bias, key_bias: (3D,), (D,), (D,). Absent: 0.
        frequency_bias: (D,). Absent: 0.
        filter: (D, Lf), 1 ≤ Lf ≤ L: the static filter, in time. Absent: 0.
        skip: (D,). Absent: 0.
        padding: "circular": z is periodic for the short convolutions. "zeros": z is zero outside 0 … L - 1.
        layout: "bld" or "bdl".

    Returns:
        (B, L, D), or (B, D, L), of the dtype of z, contiguous. Half types are computed in float32 and rounded
        once.

    With circular padding y shifts as z does, exactly but for rounding.

    On a CPU z is read once and y written once; what the short convolutions make stays in the cache, and is
    made again for backward, which keeps z and the weights alone and writes one gradient of z. On CUDA it
    goes through memory, as rows, in float32 for half types: 2 or with a key 3 of them for each of y,
    backward 4 or 5. There are kernels (not yet run on a GPU) where ``conditioned_conv`` has them, L = 64,
    128, …, 8192 (float64: to 4096), and a block has 81 KB of shared memory (float64: 162). Derivatives of
    which a graph is wanted, those in forward mode, and other lengths on CUDA are made by
    ``short_conv_gated``, ``short_conv`` and ``conditioned_conv``, one after another. Compilation,
    torch.func (vmap calls once for each entry), autocast, strides and bits are as for
    :func:`equiconv.short_conv`.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Karami and Ghodsi, Orchid, NeurIPS 2024, arXiv:2402.18508, section 3 and algorithm 1.
    """
    y: Tensor = torch.ops.equiconv.orchid_mix(
        z,
        short_filter,
        short_bias,
        query_filter,
        query_bias,
        key_filter,
        key_bias,
        frequency_filter,
        frequency_bias,
        filter,
        skip,
        number_of(_OP, "padding", padding, _PADDINGS) == 1,
        number_of(_OP, "layout", layout, LAYOUTS),
    )
    return y


_OP = "orchid_mix"
_PADDINGS = {"zeros": 0, "circular": 1}
_ARGUMENTS = (
    "z",
    "short_filter",
    "short_bias",
    "query_filter",
    "query_bias",
    "key_filter",
    "key_bias",
    "frequency_filter",
    "frequency_bias",
    "filter",
    "skip",
)


# ---- the dispatcher ops: fake kernels, with the checks of csrc/ops/orchid_mix.cpp --------------------------


def _check_weight(name: str, weight: Tensor, z: Tensor) -> None:
    or_float32 = z.dtype in HALF
    require(
        weight.dtype == z.dtype or (or_float32 and weight.dtype == torch.float32),
        lambda: (
            f"{_OP}: {name} must have the dtype of z, {text(z.dtype)}{', or float32' if or_float32 else ''}, "
            f"but has {text(weight.dtype)}"
        ),
    )
    require(
        weight.device == z.device,
        lambda: f"{_OP}: {name} must be on the device of z, {z.device}, but is on {weight.device}",
    )


def _check_taps(
    name: str, shape: str, filter: Tensor, z: Tensor, channels: int, least: int = 1, most: int = MAX_TAPS
) -> None:
    require(filter.dim() == 2, lambda: f"{_OP}: {name} must be {shape}, but has shape {tuple(filter.shape)}")
    _check_weight(name, filter, z)
    have, taps = filter.shape
    beside = f"beside z of shape {tuple(z.shape)}"
    require(have == channels, lambda: f"{_OP}: {name} must have {channels} channels {beside}, but has {have}")
    require(
        least <= taps <= most,
        lambda: f"{_OP}: {name} must have {least} to {most} taps {beside}, but has {taps}",
    )


def _check_channels(name: str, weight: MaybeTensor, z: Tensor, channels: int) -> None:
    if weight is None:
        return
    _check_weight(name, weight, z)
    require(
        weight.dim() == 1 and weight.shape[0] == channels,
        lambda: (
            f"{_OP}: {name} must have shape ({channels},) beside z of shape {tuple(z.shape)}, "
            f"but has {tuple(weight.shape)}"
        ),
    )


def _check(
    z: Tensor,
    short_filter: Tensor,
    short_bias: MaybeTensor,
    query_filter: Tensor,
    query_bias: MaybeTensor,
    key_filter: MaybeTensor,
    key_bias: MaybeTensor,
    frequency_filter: Tensor,
    frequency_bias: MaybeTensor,
    filter: MaybeTensor,
    skip: MaybeTensor,
    circular: bool,
    layout: int,
) -> list[int]:
    """The shape of y."""
    in_rows = name_of(_OP, "layout", layout, LAYOUTS) == "bdl"
    check_floating(_OP, "z", z)
    shape = "(B, 3D, L)" if in_rows else "(B, L, 3D)"
    require(z.dim() == 3, lambda: f"{_OP}: z must be {shape}, but has shape {tuple(z.shape)}")
    axis = 1 if in_rows else 2
    channels, length = z.shape[axis], z.shape[3 - axis]
    longest = MAX_LENGTHS.get(z.device.type, MAX_LENGTH)
    require(length <= longest, lambda: f"{_OP}: z must have at most {longest} positions, but has {length}")
    require(
        channels % 3 == 0,
        lambda: f"{_OP}: z must have three times as many channels as y, but has {channels}",
    )
    of_y = channels // 3
    _check_taps("short_filter", "(3D, W)", short_filter, z, channels)
    _check_channels("short_bias", short_bias, z, channels)
    _check_taps("query_filter", "(D, W)", query_filter, z, of_y)
    _check_channels("query_bias", query_bias, z, of_y)
    if key_filter is not None:
        _check_taps("key_filter", "(D, W)", key_filter, z, of_y)
    else:
        require(
            key_bias is None,
            lambda: f"{_OP}: key_bias must be absent where there is no key_filter, but is there",
        )
    _check_channels("key_bias", key_bias, z, of_y)
    _check_taps("frequency_filter", "(D, W)", frequency_filter, z, of_y)
    _check_channels("frequency_bias", frequency_bias, z, of_y)
    if filter is not None:
        _check_taps("filter", "(D, Lf)", filter, z, of_y, min(length, 1), max(length, 1))
    _check_channels("skip", skip, z, of_y)
    result = list(z.shape)
    result[axis] = of_y
    return result


def _fake(z: Tensor, *others: Any) -> Tensor:
    return z.new_empty(_check(z, *others))


def _fake_backward(grad_out: Tensor, z: Tensor, *others: Any) -> tuple[Tensor, ...]:
    tensors, needs = (z, *others[:10]), others[12:]
    shape = _check(z, *others[:12])
    require(
        list(grad_out.shape) == shape,
        lambda: f"{_OP}: grad_out must have the shape of y, {tuple(shape)}, but has {tuple(grad_out.shape)}",
    )
    require(
        grad_out.dtype == z.dtype,
        lambda: f"{_OP}: grad_out must have the dtype of z, {text(z.dtype)}, but has {text(grad_out.dtype)}",
    )
    require(
        grad_out.device == z.device,
        lambda: f"{_OP}: grad_out must be on the device of z, {z.device}, but is on {grad_out.device}",
    )
    return tuple(
        argument.new_empty(argument.shape) if need and argument is not None else z.new_empty(0)
        for argument, need in zip(tensors, needs, strict=True)
    )


# ---- by other ops ------------------------------------------------------------------------------------------


class _Parts:
    """The arguments as those of the ops that orchid_mix is made of."""

    def __init__(self, tensors: Tensors, rest: tuple[Any, ...]) -> None:
        z, short_filter, short_bias, *condition, self.frequency_filter, self.frequency_bias = tensors[:9]
        self.filter, self.skip = tensors[9:]
        query_filter, query_bias, key_filter, key_bias = condition
        self.circular, self.layout = rest
        self.short = z, short_filter, short_bias
        w = None if z is None else z.chunk(3, self.axis)[2]
        self.query, self.key = (w, query_filter, query_bias), (w, key_filter, key_bias)

    @property
    def axis(self) -> int:
        return 1 if self.layout == LAYOUTS["bdl"] else 2

    @property
    def short_form(self) -> tuple[Any, ...]:
        return self.circular, 0, self.layout

    def form_of(self, condition: Tensors) -> tuple[Any, ...]:
        _, filter, _ = condition
        assert filter is not None
        return self.circular, filter.shape[1] // 2, self.layout

    def conditioned(self, x0: MaybeTensor, u: MaybeTensor, q: MaybeTensor, k: MaybeTensor) -> Tensors:
        """The tensors of conditioned_conv."""
        return u, q, k, self.frequency_filter, self.frequency_bias, self.filter, None, x0, self.skip


def _made(parts: _Parts) -> Tensors:
    """The tensors of conditioned_conv."""
    ops = torch.ops.equiconv
    x0, u = ops.short_conv_gated(*parts.short, *parts.short_form)
    q = ops.short_conv(*parts.query, *parts.form_of(parts.query))
    k = None if parts.key[1] is None else ops.short_conv(*parts.key, *parts.form_of(parts.key))
    return parts.conditioned(x0, u, q, k)


def _composition(*args: Any) -> Tensor:
    _check(*args)
    parts = _Parts(args[:11], args[11:])
    y: Tensor = torch.ops.equiconv.conditioned_conv(*_made(parts), parts.layout)
    return y


def _composition_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    tensors, rest, needs = args[:11], args[11:13], args[13:]
    ops, parts = torch.ops.equiconv, _Parts(tensors, rest)
    need_z, need_short, need_query, need_key = needs[0], needs[1:3], needs[3:5], needs[5:7]
    streams, keyed = need_z or any(need_short), tensors[5] is not None
    condition, key = need_z or any(need_query), keyed and (need_z or any(need_key))
    made = _made(parts)
    u, q, k, *of_weights, _, x0, skip = ops.conditioned_conv_backward(
        grad_out, *made, parts.layout, streams, condition, key, *needs[7:10], False, streams, needs[10]
    )
    grads: list[MaybeTensor] = [None] * 11
    grads[7:] = *of_weights, skip
    if streams:
        grads[:3] = ops.short_conv_gated_backward(x0, u, *parts.short, *parts.short_form, need_z, *need_short)
    for wanted, grad, given, need, at in (
        (condition, q, parts.query, need_query, 3),
        (key, k, parts.key, need_key, 5),
    ):
        if wanted:
            of_w, *grads[at : at + 2] = ops.short_conv_backward(
                grad, *given, *parts.form_of(given), need_z, *need
            )
            if need_z:
                zeros = torch.zeros_like(of_w)
                grads[0] = total([grads[0], torch.cat([zeros, zeros, of_w], parts.axis)])
    return tuple(
        grad if need and t is not None and grad is not None else args[0].new_empty(0)
        for grad, need, t in zip(grads, needs, tensors, strict=True)
    )


class _MixOp(ClosedOp):
    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        """By those of the ops that this one is made of."""
        parts, changes = _Parts(tensors, rest), _Parts(tangents, rest)

        def present(changes: Tensors) -> bool:
            return any(change is not None for change in changes)

        x0 = u = q = k = None
        if present(changes.short):
            x0, u = gated.tangents(parts.short, parts.short_form, changes.short)
        if present(changes.query):
            q = linear.tangent(parts.query, parts.form_of(parts.query), changes.query)
        if parts.key[1] is not None and present(changes.key):
            k = linear.tangent(parts.key, parts.form_of(parts.key), changes.key)
        return conditioned.tangent(_made(parts), (parts.layout,), changes.conditioned(x0, u, q, k))

    def _differentiable_backward(self, *args: Any) -> tuple[Tensor, ...]:
        return _composition_backward(*args)


_op = _MixOp(name=_OP, arguments=_ARGUMENTS, weights=tuple(range(1, 11)))
_op.register(_fake, _fake_backward)


# ---- CUDA --------------------------------------------------------------------------------------------------


def _on_cuda(*args: Any) -> Tensor:
    ops = torch.ops.equiconv
    fuses = ops.orchid_mix_fuses(args[0], args[12])
    y: Tensor = (ops.orchid_mix_fused if fuses else _composition)(*args)
    return y


def _on_cuda_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    ops = torch.ops.equiconv
    fuses = ops.orchid_mix_fuses(args[0], args[12])
    return tuple((ops.orchid_mix_fused_backward if fuses else _composition_backward)(grad_out, *args))


if torch._C._dispatch_has_kernel_for_dispatch_key("equiconv::fft_conv", "CUDA"):
    torch.library.impl(_op.forward.name(), "CUDA", _on_cuda)
    torch.library.impl(_op.backward.name(), "CUDA", _on_cuda_backward)
