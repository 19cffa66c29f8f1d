"""Derivatives of every order, vmap and autocast for ops that are linear in each of their arguments.

The same for any op whose derivatives are made of it and its gradient again is the class ClosedOp.

A multilinear op comes as two dispatcher ops, here for arguments a1 … an and anything else that follows:

    y               = <name>(a1, …, an, *rest)
    grad_a1, …      = <name>_backward(grad_out, a1, …, an, *rest, need_a1, …, need_an)

The second returns the partial gradients of φ = ⟨grad_out, y⟩, and its own derivative needs nothing new: for
cotangents v1 … vn it is the gradient of Σᵢ φ(aᵢ → vᵢ), so a sum of calls of the same two ops with one
argument exchanged (docs/mathematics.md, "Every order"). Arguments that are linear only together, as a
filter and the skip beside it, form a group and are exchanged together. Where y is linear in an argument but
for summands without it, their arguments are left out while it is exchanged.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import registration
from .check import MaybeTensor

__all__ = ["ClosedOp", "MultilinearOp", "Tensors", "changes_of", "total"]

Tensors = Sequence[MaybeTensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedOp:
    """An op and its gradient, two dispatcher ops as above, of which every derivative is made; `register`
    tells autograd, vmap and autocast. What the derivatives are, a subclass says.

    name: the op, in the namespace equiconv; `<name>_backward` is its gradient.
    arguments: the names of a1 … an, x or rel among them.
    weights: the positions of arguments that stay float32 under autocast.
    others: names of tensors that follow, of which nothing is differentiable.
    """

    name: str
    arguments: tuple[str, ...]
    weights: tuple[int, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.arguments)

    @property
    def forward(self) -> Any:
        return getattr(torch.ops.equiconv, self.name).default

    @property
    def backward(self) -> Any:
        return getattr(torch.ops.equiconv, f"{self.name}_backward").default

    def register(self, fake: Callable[..., Any], fake_backward: Callable[..., Any]) -> None:
        given = (*self.arguments, *self.others)
        registration.register(
            self.forward,
            self.name,
            given,
            fake=fake,
            autograd=registration.autograd_kernel(self.forward, self._forward_function()),
            vmap=self._vmap_forward,
        )
        registration.register(
            self.backward,
            self.name,
            ("grad_out", *given),
            fake=fake_backward,
            autograd=registration.autograd_kernel(
                self.backward, self._backward_function(), self._differentiable_backward
            ),
            vmap=self._vmap_backward,
        )
        registration.register_autocast(self.forward, self.count, self.weights)

    # ---- autograd ------------------------------------------------------------------------------------

    def _forward_function(self) -> Any:
        op, n = self, self.count

        class Forward(registration.Function):
            @staticmethod
            def forward(ctx: Any, below: Callable[..., Tensor], *args: Any) -> Tensor:
                ctx.set_materialize_grads(False)
                ctx.save_for_backward(*args[:n])
                ctx.save_for_forward(*args[:n])
                ctx.rest = args[n:]
                return below(*args)

            @staticmethod
            def backward(ctx: Any, grad_out: MaybeTensor) -> tuple[Any, ...]:
                tensors = ctx.saved_tensors
                if grad_out is None:
                    return None, *(None for _ in (*tensors, *ctx.rest))
                needs = registration.needed(ctx, tensors)
                with registration.no_autocast():
                    grads = op.gradients(grad_out, tensors, ctx.rest, needs)
                return None, *grads, *(None for _ in ctx.rest)

            @staticmethod
            def jvp(ctx: Any, _: None, *tangents: Any) -> Tensor:
                with registration.forward_level(ctx.saved_tensors) as tensors, registration.no_autocast():
                    return op.tangent(tensors, ctx.rest, tangents[:n])

        return Forward

    def _backward_function(self) -> Any:
        op, n = self, self.count

        class Backward(registration.Function):
            @staticmethod
            def forward(ctx: Any, below: Callable[..., tuple[Tensor, ...]], *args: Any) -> tuple[Tensor, ...]:
                ctx.set_materialize_grads(False)
                ctx.save_for_backward(*args[: 1 + n])
                ctx.save_for_forward(*args[: 1 + n])
                ctx.rest = args[1 + n : -n]
                ctx.needs = [need and t is not None for need, t in zip(args[-n:], args[1:], strict=False)]
                grads = below(*args)
                unneeded = [grad for grad, need in zip(grads, ctx.needs, strict=True) if not need]
                ctx.mark_non_differentiable(*unneeded)
                return tuple(grads)

            @staticmethod
            def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
                saved = ctx.saved_tensors  # once: to ask for them may be to compute them again
                grad_out, *tensors = saved
                need_grad_out, *needs = registration.needed(ctx, saved)
                present = [v if need else None for v, need in zip(cotangents, ctx.needs, strict=True)]
                terms: list[Tensors] = [[None] * (1 + n)]
                with registration.no_autocast():
                    terms += op.gradient_cotangents(
                        grad_out, tensors, ctx.rest, present, need_grad_out, needs
                    )
                return None, *map(total, zip(*terms, strict=True)), *(None for _ in (*ctx.rest, *ctx.needs))

            @staticmethod
            def jvp(ctx: Any, _: None, v: MaybeTensor, *tangents: Any) -> tuple[MaybeTensor, ...]:
                with registration.forward_level(ctx.saved_tensors) as saved, registration.no_autocast():
                    grad_out, *tensors = saved
                    # Autograd wants a tangent wherever there is a gradient, even where nothing contributes.
                    zeros = [
                        torch.zeros_like(t) if need else None
                        for t, need in zip(tensors, ctx.needs, strict=True)
                    ]
                    terms: list[Tensors] = [zeros]
                    if v is not None:
                        terms.append(op.gradients(v, tensors, ctx.rest, ctx.needs))
                    terms += op.gradient_tangents(grad_out, tensors, ctx.rest, tangents[:n], ctx.needs)
                    return tuple(map(total, zip(*terms, strict=True)))

        return Backward

    def gradients(
        self, grad_out: Tensor, tensors: Tensors, rest: tuple[Any, ...], needs: Sequence[bool]
    ) -> tuple[MaybeTensor, ...]:
        """The gradients that are needed; None in the place of the others."""
        if not any(needs):
            return (None,) * len(needs)
        return _only(self.backward(grad_out, *tensors, *rest, *needs), needs)

    # ---- what a subclass says --------------------------------------------------------------------------

    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        """Of the op, for tangents of its arguments, not all of them absent."""
        raise NotImplementedError

    def gradient_cotangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        cotangents: Tensors,
        need_grad_out: bool,
        needs: Sequence[bool],
    ) -> Iterable[Tensors]:
        """The terms of the gradients of grad_out and of every argument, for cotangents of the gradients."""
        raise NotImplementedError

    def gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterable[Tensors]:
        """The terms of the gradients' tangents, for tangents of the arguments."""
        raise NotImplementedError

    def _differentiable_backward(self, *args: Any) -> tuple[Tensor, ...] | None:
        """What the backward op gives, from ops whose derivatives are right where its own would not be."""
        return None

    def _vmap_forward(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        y, dim = registration.each_entry(self.forward, info, in_dims, *args)
        return y, dim

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        grads, dims = registration.each_entry(self.backward, info, in_dims, *args)
        return grads, dims


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultilinearOp(ClosedOp):
    """An op that is linear in each of its arguments.

    groups: the positions of the tensor arguments, those that are linear only together in one group.
    zero: what stands for zero in the place of argument i, given all of them (None: left out). Asked for only
        in groups of more than one.
    apart: by an argument that not every summand of y holds, the arguments of those without it, as x and a
        bias: they are no part of that derivative.
    channel_axes: for the arguments that follow the tensors, each tensor's channel axis, counted from its end.
        Channels are independent, so vmap folds its dimension into them; y is as the first tensor. Where there
        are no such axes, vmap calls the op once for each entry.
    """

    groups: tuple[tuple[int, ...], ...]
    zero: Callable[[int, Tensors], MaybeTensor] = lambda i, tensors: None
    apart: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    channel_axes: Callable[..., tuple[int, ...]] | None = None

    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        terms = self._exchanges(tensors, tangents, rest)
        y = total(self.forward(*exchanged, *rest) for _, exchanged in terms)
        assert y is not None
        return y

    def gradient_cotangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        cotangents: Tensors,
        need_grad_out: bool,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        for group, exchanged in self._exchanges(tensors, cotangents, rest):
            forward = self.forward(*exchanged, *rest) if need_grad_out else None
            yield [forward, *self.gradients(grad_out, exchanged, rest, _others(needs, group, exchanged))]

    def gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        for group, exchanged in self._exchanges(tensors, tangents, rest):
            yield self.gradients(grad_out, exchanged, rest, _others(needs, group, exchanged))

    def _exchanges(
        self, tensors: Tensors, others: Tensors, rest: tuple[Any, ...]
    ) -> Iterator[tuple[tuple[int, ...], Tensors]]:
        """Each group with something in `others`, and the tensors with this group exchanged for it."""
        for group in self.groups:
            if any(others[i] is not None for i in group):
                exchanged = list(tensors)
                for i in group:
                    exchanged[i] = self.zero(i, tensors) if others[i] is None else others[i]
                    for absent in self.apart.get(i, ()):
                        exchanged[absent] = None
                yield group, exchanged

    # ---- vmap ----------------------------------------------------------------------------------------

    def _vmap_forward(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        if self.channel_axes is None or info.batch_size == 0:
            return super()._vmap_forward(info, in_dims, *args)
        tensors, rest = args[: self.count], args[self.count :]
        axes = self.channel_axes(*rest)
        y = self.forward(*_fold_all(tensors, in_dims, info.batch_size, axes), *rest)
        return _unfold(y, info.batch_size, axes[0]), 0

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        n = self.count
        if self.channel_axes is None or info.batch_size == 0:
            return super()._vmap_backward(info, in_dims, *args)
        tensors, rest, needs = args[: 1 + n], args[1 + n : -n], args[-n:]
        axes = self.channel_axes(*rest)
        grads = self.backward(*_fold_all(tensors, in_dims, info.batch_size, (axes[0], *axes)), *rest, *needs)
        dims = tuple(
            0 if need and t is not None else None for need, t in zip(needs, tensors[1:], strict=True)
        )
        unfolded = (
            grad if dim is None else _unfold(grad, info.batch_size, axis)
            for grad, dim, axis in zip(grads, dims, axes, strict=True)
        )
        return tuple(unfolded), dims


def _others(needs: Sequence[bool], group: tuple[int, ...], exchanged: Tensors) -> list[bool]:
    """What else is needed of a term that one group was exchanged in."""
    return [
        need and i not in group and tensor is not None
        for i, (need, tensor) in enumerate(zip(needs, exchanged, strict=True))
    ]


def total(terms: Iterable[MaybeTensor]) -> MaybeTensor:
    """The sum of the terms that are there; None if none is."""
    present = [term for term in terms if term is not None]
    return functools.reduce(torch.add, present) if present else None


def changes_of(
    function: Callable[..., Tensor], grad_out: MaybeTensor, tensors: Tensors, changes: Tensors
) -> list[MaybeTensor]:
    """What the result of a function in plain PyTorch and each of its gradients change by, for changes of its
    arguments: the derivative of ⟨changes, gradients⟩ by grad_out (None: zeros) and the arguments."""
    present = [i for i, t in enumerate(tensors) if t is not None]

    def out(*given: Tensor) -> Tensor:
        placed: list[MaybeTensor] = [None] * len(tensors)
        for i, tensor in zip(present, given, strict=True):
            placed[i] = tensor
        return function(*placed)

    def gradients(grad_out: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        _, pull = torch.func.vjp(out, *given)  # type: ignore[misc]
        return pull(grad_out)  # type: ignore[no-any-return]

    given = [tensors[i] for i in present]
    if grad_out is None:
        grad_out = torch.zeros_like(function(*tensors))
    _, pull = torch.func.vjp(gradients, grad_out, *given)  # type: ignore[misc]
    directions = tuple(
        torch.zeros_like(tensors[i]) if changes[i] is None else changes[i]  # type: ignore[arg-type]
        for i in present
    )
    change, *of_gradients = pull(directions)
    made: list[MaybeTensor] = [change, *(None for _ in tensors)]
    for i, of_gradient in zip(present, of_gradients, strict=True):
        made[1 + i] = of_gradient
    return made


def _only(grads: tuple[Tensor, ...], needs: Sequence[bool]) -> tuple[MaybeTensor, ...]:
    return tuple(grad if need else None for grad, need in zip(grads, needs, strict=True))


def _fold_all(tensors: Tensors, dims: Sequence[int | None], size: int, axes: Sequence[int]) -> Tensors:
    return [
        None if tensor is None else _fold(tensor, dim, size, axis)
        for tensor, dim, axis in zip(tensors, dims, axes, strict=False)  # dims go on beyond the tensors
    ]


def _fold(tensor: Tensor, dim: int | None, size: int, axis: int) -> Tensor:
    """Fold dimension `dim` of `size` entries (None: the same for all) into `axis`, counted from the end."""
    batched = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return batched.movedim(0, axis - 1).flatten(axis - 1, axis)


def _unfold(tensor: Tensor, size: int, axis: int) -> Tensor:
    """Undo `_fold`: the folded dimension comes first."""
    shape = list(tensor.shape)
    shape[axis:] = [size, shape[axis] // size, *shape[tensor.dim() + axis + 1 :]]
    return tensor.reshape(shape).movedim(axis - 1, 0)
