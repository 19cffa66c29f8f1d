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

Everything is registered with the dispatcher, so `torch.ops`, compiled and exported programs have it too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from .check import MaybeTensor, refuse_elsewhere

__all__ = ["ClosedOp", "MultilinearOp", "under_autocast"]

Tensors = Sequence[MaybeTensor]
TensorOrNone = TypeVar("TensorOrNone", Tensor, Tensor | None)

_library = torch.library.Library("equiconv", "FRAGMENT")  # type: ignore[no-untyped-call]
_AUTOCAST = (torch._C.DispatchKey.AutocastCPU, torch._C.DispatchKey.AutocastCUDA)


class _Function(torch.autograd.function._SingleLevelFunction):
    """torch.autograd.Function without its care for the levels of torch.func's transforms.

    An autograd kernel in the dispatcher, like PyTorch's own, is called once for each level anyway.
    """

    _compiled_autograd_key = staticmethod(torch.autograd.Function._compiled_autograd_key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedOp:
    """An op and its gradient, two dispatcher ops as above, of which every derivative is made; `register`
    tells autograd, vmap and autocast. What the derivatives are, a subclass says.

    name: the op, in the namespace equiconv; `<name>_backward` is its gradient.
    arguments: the names of a1 … an, x among them.
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
        for op, names, fake_kernel, differentiate, fold in (
            (self.forward, given, fake, self._forward_function(), self._vmap_forward),
            (
                self.backward,
                ("grad_out", *given),
                fake_backward,
                self._backward_function(),
                self._vmap_backward,
            ),
        ):
            torch.library.register_fake(op.name(), fake_kernel, lib=_library)
            torch.library.register_vmap(op.name(), fold, lib=_library)
            instead = self._differentiable_backward if op is self.backward else None
            autograd = _autograd_kernel(op, differentiate, instead)
            _library.impl(op, autograd, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
            # Wherever there is no kernel: one sentence instead of the dispatcher's page.
            elsewhere = functools.partial(self._elsewhere, names)
            _library.impl(op, elsewhere, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        for key in _AUTOCAST:
            _library.impl(self.forward, self._autocast_kernel, key.name)  # type: ignore[no-untyped-call]

    def _elsewhere(self, names: Sequence[str], *args: Any) -> NoReturn:
        refuse_elsewhere(self.name, dict(zip(names, args, strict=False)))

    # ---- autograd ------------------------------------------------------------------------------------

    def _forward_function(self) -> Any:
        op, n = self, self.count

        class Forward(_Function):
            @staticmethod
            def forward(ctx: Any, below: Callable[..., Tensor], *args: Any) -> Tensor:
                ctx.set_materialize_grads(False)
                ctx.save_for_backward(*args[:n])
                ctx.save_for_forward(*args[:n])
                ctx.rest = args[n:]
                return below(*args)

            @staticmethod
            def backward(ctx: Any, grad_out: MaybeTensor) -> tuple[Any, ...]:
                needs = ctx.needs_input_grad[1 : 1 + n]
                if grad_out is None:
                    return None, *(None for _ in (*needs, *ctx.rest))
                with _no_autocast():
                    grads = op._gradients(grad_out, ctx.saved_tensors, ctx.rest, needs)
                return None, *grads, *(None for _ in ctx.rest)

            @staticmethod
            def jvp(ctx: Any, _: None, *tangents: Any) -> Tensor:
                with _no_autocast():
                    return op._tangent(ctx.saved_tensors, ctx.rest, tangents[:n])

        return Forward

    def _backward_function(self) -> Any:
        op, n = self, self.count

        class Backward(_Function):
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
                grad_out, *tensors = ctx.saved_tensors
                need_grad_out, *needs = ctx.needs_input_grad[1 : 2 + n]
                present = [v if need else None for v, need in zip(cotangents, ctx.needs, strict=True)]
                terms: list[Tensors] = [[None] * (1 + n)]
                with _no_autocast():
                    terms += op._gradient_cotangents(
                        grad_out, tensors, ctx.rest, present, need_grad_out, needs
                    )
                return None, *map(_sum, zip(*terms, strict=True)), *(None for _ in (*ctx.rest, *ctx.needs))

            @staticmethod
            def jvp(ctx: Any, _: None, v: MaybeTensor, *tangents: Any) -> tuple[MaybeTensor, ...]:
                grad_out, *tensors = ctx.saved_tensors
                # Autograd wants a tangent wherever there is a gradient, even where nothing contributes.
                zeros = [
                    torch.zeros_like(t) if need else None for t, need in zip(tensors, ctx.needs, strict=True)
                ]
                terms: list[Tensors] = [zeros]
                with _no_autocast():
                    if v is not None:
                        terms.append(op._gradients(v, tensors, ctx.rest, ctx.needs))
                    terms += op._gradient_tangents(grad_out, tensors, ctx.rest, tangents[:n], ctx.needs)
                return tuple(map(_sum, zip(*terms, strict=True)))

        return Backward

    def _gradients(
        self, grad_out: Tensor, tensors: Tensors, rest: tuple[Any, ...], needs: Sequence[bool]
    ) -> tuple[MaybeTensor, ...]:
        """The gradients that are needed; None in the place of the others."""
        if not any(needs):
            return (None,) * len(needs)
        return _only(self.backward(grad_out, *tensors, *rest, *needs), needs)

    # ---- what a subclass says --------------------------------------------------------------------------

    def _tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        """Of the op, for tangents of its arguments, not all of them absent."""
        raise NotImplementedError

    def _gradient_cotangents(
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

    def _gradient_tangents(
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
        each = [self.forward(*entry) for entry in _entries(args, in_dims, info.batch_size)]
        return torch.stack(each), 0

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        each = [self.backward(*entry) for entry in _entries(args, in_dims, info.batch_size)]
        return tuple(torch.stack(grads) for grads in zip(*each, strict=True)), (0,) * self.count

    # ---- autocast ------------------------------------------------------------------------------------

    def _autocast_kernel(self, *args: Any) -> Any:
        tensors = [under_autocast(t, weight=i in self.weights) for i, t in enumerate(args[: self.count])]
        with _no_autocast():
            return self.forward(*tensors, *args[self.count :])


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

    def _tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        terms = self._exchanges(tensors, tangents, rest)
        total: Tensor = _sum(self.forward(*exchanged, *rest) for _, exchanged in terms)
        return total

    def _gradient_cotangents(
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
            yield [forward, *self._gradients(grad_out, exchanged, rest, _others(needs, group, exchanged))]

    def _gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        for group, exchanged in self._exchanges(tensors, tangents, rest):
            yield self._gradients(grad_out, exchanged, rest, _others(needs, group, exchanged))

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
        if self.channel_axes is None:
            return super()._vmap_forward(info, in_dims, *args)
        tensors, rest = args[: self.count], args[self.count :]
        axes = self.channel_axes(*rest)
        y = self.forward(*_fold_all(tensors, in_dims, info.batch_size, axes), *rest)
        return _unfold(y, info.batch_size, axes[0]), 0

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        n = self.count
        if self.channel_axes is None:
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


def _autograd_kernel(
    op: Any, differentiate: Any, instead: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """What the dispatcher calls for autograd, once for each level of torch.func's transforms."""

    def kernel(keyset: Any, *args: Any) -> Any:
        def below(*args: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

        def below_with_outer_levels(*args: Any) -> Any:
            # An autograd function runs with both modes off, but outer levels differentiate too.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return below(*args)

        reverse = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if not reverse and forward_ad._current_level < 0:
            return below(*args)
        if instead is not None and (result := instead(*args)) is not None:
            return result
        if not torch._C._are_functorch_transforms_active():
            return differentiate.apply(below, *args)
        with enable_single_level_autograd_function():
            return differentiate.apply(below_with_outer_levels, *args)

    return kernel


def _others(needs: Sequence[bool], group: tuple[int, ...], exchanged: Tensors) -> list[bool]:
    """What else is needed of a term that one group was exchanged in."""
    return [
        need and i not in group and tensor is not None
        for i, (need, tensor) in enumerate(zip(needs, exchanged, strict=True))
    ]


def _sum(terms: Iterable[MaybeTensor]) -> Any:
    """The sum of the terms that are there; None if none is."""
    present = [term for term in terms if term is not None]
    return functools.reduce(torch.add, present) if present else None


def _only(grads: tuple[Tensor, ...], needs: Sequence[bool]) -> tuple[MaybeTensor, ...]:
    return tuple(grad if need else None for grad, need in zip(grads, needs, strict=True))


def _entries(args: Sequence[Any], dims: Sequence[int | None], size: int) -> Iterator[list[Any]]:
    """The arguments of each of vmap's `size` calls."""
    for i in range(size):
        yield [arg if dim is None else arg.select(dim, i) for arg, dim in zip(args, dims, strict=True)]


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


def under_autocast(tensor: TensorOrNone, *, weight: bool = False) -> TensorOrNone:
    """`tensor` as autocast wants it: in its dtype, but float64 as it is, and so a weight in float32."""
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    left_alone = tensor.dtype == torch.float64 or (weight and tensor.dtype == torch.float32)
    if left_alone or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _no_autocast() -> Any:
    """Derivatives are computed in the dtypes of what was saved, whatever autocast says meanwhile."""
    if not torch._C._is_any_autocast_enabled():
        return contextlib.nullcontext()
    cpu, cuda = map(torch._C.DispatchKeySet, _AUTOCAST)
    return torch._C._ExcludeDispatchKeyGuard(cpu | cuda)
