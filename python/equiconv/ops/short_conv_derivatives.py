"""Autograd of every order, vmap and autocast of ``short_conv`` and its other forms."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import registration
from .check import LAYOUTS, MaybeTensor
from .gate import NUMBERS
from .multilinear import ClosedOp, MultilinearOp, Tensors, total
from .short_conv_checks import (
    ACTIVATIONS,
    GATED,
    OP,
    STEP,
    fake,
    fake_activated,
    fake_activated_backward,
    fake_backward,
    fake_gated,
    fake_gated_backward,
    fake_step,
)

# ---- derivatives: what is linear ------------------------------------------------------------------------


def _zero(i: int, tensors: Tensors) -> MaybeTensor:
    """Of the group (filter, bias): a filter of zeros, and no bias at all."""
    filter = tensors[1]
    return None if i == 2 or filter is None else torch.zeros_like(filter)


def _channel_axes(*rest: Any) -> tuple[int, ...]:
    layout = rest[-1]
    return -2 if layout == LAYOUTS["bdl"] else -1, -2, -1


_ARGUMENTS: dict[str, Any] = {"arguments": ("x", "filter", "bias"), "weights": (1, 2)}

linear = MultilinearOp(
    name=OP, **_ARGUMENTS, groups=((0,), (1, 2)), zero=_zero, apart={0: (2,)}, channel_axes=_channel_axes
)
linear.register(fake, fake_backward)


# ---- derivatives: what follows the sums ------------------------------------------------------------------

# y = h(s) with s = short_conv(x). For changes of the arguments, s changes by q, which is linear, and y by
# h'(s) q. The gradient of s is h'(s)ᵀ g, and changes by h'(s)ᵀ g' + (h'' g)(s) q; the gradients of the
# arguments are those of s through short_conv. h'' g is symmetric, so ⟨h'(s)ᵀ g, q⟩ has the gradients
# (h'' g)(s) q by s and h'(s)ᵀ g by q. All is made of short_conv, its gradient, and products of entries.


class _ActivatedOp(ClosedOp):
    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        activation, *form = rest
        q = linear.tangent(tensors, tuple(form), tangents)
        return _derivative(q, linear.forward(*tensors, *form), activation, 1)

    def gradient_cotangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        cotangents: Tensors,
        need_grad_out: bool,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if all(cotangent is None for cotangent in cotangents):
            return
        if need_grad_out:
            yield [self.tangent(tensors, rest, cotangents), None, None, None]
        for grads in self.gradient_tangents(grad_out, tensors, rest, cotangents, needs):
            yield [None, *grads]

    def gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if all(tangent is None for tangent in tangents):
            return
        activation, *others = rest
        form = tuple(others)
        s, q = linear.forward(*tensors, *form), linear.tangent(tensors, form, tangents)
        yield linear.gradients(_derivative(grad_out * q, s, activation, 2), tensors, form, needs)
        grad_s = _derivative(grad_out, s, activation, 1)
        yield from linear.gradient_tangents(grad_s, tensors, form, tangents, needs)

    def _vmap_forward(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        return _folding(self)._vmap_forward(info, in_dims, *args)

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        return _folding(self)._vmap_backward(info, in_dims, *args)


def _folding(op: ClosedOp) -> MultilinearOp:
    """For vmap, which folds channels whatever the op makes of them."""
    return MultilinearOp(name=op.name, **_ARGUMENTS, groups=(), channel_axes=_channel_axes)


def _derivative(g: Tensor, s: Tensor, activation: int, order: int) -> Tensor:
    """g times the activation's derivative of this order at s: the op `gate`."""
    (name,) = (name for name, number in ACTIVATIONS.items() if number == activation)
    y: Tensor = torch.ops.equiconv.gate(g, s, None, None, NUMBERS[name], -1, order)
    return y


_ActivatedOp(name="short_conv_activated", **_ARGUMENTS).register(fake_activated, fake_activated_backward)


def _streams(s: Tensor, layout: int) -> tuple[Tensor, ...]:
    return s.chunk(3, 1 if layout == LAYOUTS["bdl"] else 2)


def _joined(streams: Sequence[Tensor], layout: int) -> Tensor:
    return torch.cat(list(streams), 1 if layout == LAYOUTS["bdl"] else 2)


class _GatedOp:
    """Of (x0, x1, v) = s come x0 and u = x1 v."""

    forward = property(lambda self: torch.ops.equiconv.short_conv_gated.default)
    backward = property(lambda self: torch.ops.equiconv.short_conv_gated_backward.default)

    def sums(self, tensors: Tensors, form: tuple[Any, ...]) -> tuple[Tensor, ...]:
        return _streams(linear.forward(*tensors, *form), form[-1])

    def changes(self, tensors: Tensors, form: tuple[Any, ...], changes: Tensors) -> tuple[Tensor, ...]:
        return _streams(linear.tangent(tensors, form, changes), form[-1])

    def tangents(self, tensors: Tensors, form: tuple[Any, ...], tangents: Tensors) -> tuple[Tensor, Tensor]:
        """Of x0 and u."""
        _, x1, v = self.sums(tensors, form)
        q0, q1, q2 = self.changes(tensors, form, tangents)
        return q0, q1 * v + x1 * q2

    def gradients(
        self, grads: Sequence[Tensor], tensors: Tensors, form: tuple[Any, ...], needs: Sequence[bool]
    ) -> Tensors:
        found = self.backward(*grads, *tensors, *form, *needs)
        return [grad if need else None for grad, need in zip(found, needs, strict=True)]

    def gradient_tangents(
        self,
        grads: Sequence[Tensor],
        tensors: Tensors,
        form: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        """The terms of the gradients' tangents; equally of the arguments' gradients."""
        (grad_x0, grad_u), layout = grads, form[-1]
        _, x1, v = self.sums(tensors, form)
        q0, q1, q2 = self.changes(tensors, form, tangents)
        bent = _joined([torch.zeros_like(q0), grad_u * q2, grad_u * q1], layout)
        yield linear.gradients(bent, tensors, form, needs)
        grad_s = _joined([grad_x0, grad_u * v, grad_u * x1], layout)
        yield from linear.gradient_tangents(grad_s, tensors, form, tangents, needs)


def _gated_functions(op: _GatedOp) -> tuple[Any, Any]:
    class Forward(registration.Function):
        @staticmethod
        def forward(ctx: Any, below: Callable[..., tuple[Tensor, ...]], *args: Any) -> tuple[Tensor, ...]:
            ctx.save_for_backward(*args[:3])
            ctx.save_for_forward(*args[:3])
            ctx.form = args[3:]
            return tuple(below(*args))

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
            tensors = ctx.saved_tensors  # once: to ask for them may be to compute them again
            needs = registration.needed(ctx, tensors)
            with registration.no_autocast():
                found = op.gradients(grads, tensors, ctx.form, needs)
            return None, *found, *(None for _ in ctx.form)

        @staticmethod
        def jvp(ctx: Any, _: None, *tangents: Any) -> tuple[Tensor, Tensor]:
            with registration.forward_level(ctx.saved_tensors) as tensors, registration.no_autocast():
                return op.tangents(tensors, ctx.form, tangents[:3])

    class Backward(registration.Function):
        @staticmethod
        def forward(ctx: Any, below: Callable[..., tuple[Tensor, ...]], *args: Any) -> tuple[Tensor, ...]:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*args[:5])
            ctx.save_for_forward(*args[:5])
            ctx.form = args[5:-3]
            ctx.needs = [need and t is not None for need, t in zip(args[-3:], args[2:5], strict=True)]
            grads = below(*args)
            unneeded = [grad for grad, need in zip(grads, ctx.needs, strict=True) if not need]
            ctx.mark_non_differentiable(*unneeded)
            return tuple(grads)

        @staticmethod
        def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
            saved = ctx.saved_tensors
            needs = registration.needed(ctx, saved)
            present = [v if need else None for v, need in zip(cotangents, ctx.needs, strict=True)]
            rest = (None for _ in (*ctx.form, *ctx.needs))
            if all(v is None for v in present):
                return None, *(None for _ in needs), *rest
            *grads, x, filter, bias = saved
            tensors = x, filter, bias
            terms: list[Tensors] = [[None] * 5]
            with registration.no_autocast():
                if any(needs[:2]):
                    terms.append([*op.tangents(tensors, ctx.form, present), None, None, None])
                for found in op.gradient_tangents(grads, tensors, ctx.form, present, needs[2:]):
                    terms.append([None, None, *found])
            return None, *map(total, zip(*terms, strict=True)), *rest

        @staticmethod
        def jvp(ctx: Any, _: None, v0: MaybeTensor, v1: MaybeTensor, *tangents: Any) -> tuple[Any, ...]:
            with registration.forward_level(ctx.saved_tensors) as saved, registration.no_autocast():
                grads, tensors = saved[:2], saved[2:]
                # Autograd wants a tangent wherever there is a gradient, even where nothing contributes.
                zeros = [
                    torch.zeros_like(t) if need else None for t, need in zip(tensors, ctx.needs, strict=True)
                ]
                terms: list[Tensors] = [zeros]
                if v0 is not None or v1 is not None:
                    given = [
                        torch.zeros_like(g) if v is None else v for v, g in zip((v0, v1), grads, strict=True)
                    ]
                    terms.append(op.gradients(given, tensors, ctx.form, ctx.needs))
                if any(t is not None for t in tangents[:3]):
                    terms += op.gradient_tangents(grads, tensors, ctx.form, tangents[:3], ctx.needs)
                return tuple(map(total, zip(*terms, strict=True)))

    return Forward, Backward


gated = _GatedOp()
for _op, _fake_kernel, _differentiate, _grads in (
    (gated.forward, fake_gated, _gated_functions(gated)[0], ()),
    (gated.backward, fake_gated_backward, _gated_functions(gated)[1], ("grad_x0", "grad_u")),
):
    registration.register(
        _op,
        GATED,
        (*_grads, "z", "filter", "bias"),
        fake=_fake_kernel,
        autograd=registration.autograd_kernel(_op, _differentiate),
        vmap=functools.partial(registration.each_entry, _op),
    )
registration.register_autocast(gated.forward, 3, (1, 2))


# ---- one step --------------------------------------------------------------------------------------------


def _of_window(
    x: Tensor, state: Tensor, filter: Tensor, bias: MaybeTensor, activation: int
) -> tuple[Tensor, Tensor]:
    """Where derivatives are asked for, short_conv of the window, whose last position has the same bits."""
    fake_step(x, state, filter, bias, activation)
    window = torch.cat([state, x[..., None]], -1)
    form = (False, 0, LAYOUTS["bdl"])
    rows = (
        torch.ops.equiconv.short_conv(window, filter, bias, *form)
        if activation == 0
        else torch.ops.equiconv.short_conv_activated(window, filter, bias, activation, *form)
    )
    return rows[..., -1].contiguous(), window[..., 1:].contiguous()


_step = torch.ops.equiconv.short_conv_step.default
registration.register(
    _step,
    STEP,
    ("x", "state", "filter", "bias"),
    fake=fake_step,
    autograd=registration.autograd_kernel(_step, None, _of_window),
    vmap=functools.partial(registration.each_entry, _step),
)
registration.register_autocast(_step, 4, (2, 3))
