"""Derivatives of every order, vmap and autocast for ops that are linear in each of their arguments.

Such an op comes as two dispatcher ops, here for arguments a1 … an and anything else that follows:

    y               = <name>(a1, …, an, *rest)
    grad_a1, …      = <name>_backward(grad_out, a1, …, an, *rest, need_a1, …, need_an)

The second returns the partial gradients of φ = ⟨grad_out, y⟩, and its own derivative needs nothing new: for
cotangents v1 … vn it is the gradient of Σᵢ φ(aᵢ → vᵢ), so a sum of calls of the same two ops with one
argument exchanged (docs/mathematics.md, "Every order"). Arguments that are linear only together, as a
filter and the skip beside it, form a group and are exchanged together.

Everything is registered with the dispatcher, so `torch.ops`, compiled and exported programs have it too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch._functorch.utils import enable_single_level_autograd_function

__all__ = ["MultilinearOp", "under_autocast"]

MaybeTensor = Tensor | None
Tensors = Sequence[MaybeTensor]

# torch.autograd.Function handles the levels of torch.func's transforms itself. An autograd kernel in the
# dispatcher, like PyTorch's own, is called once for each level, and needs only this plain base of it.
_Function: Any = torch.autograd.function._SingleLevelFunction

_library = torch.library.Library("equiconv", "FRAGMENT")
_AUTOCAST = (torch._C.DispatchKey.AutocastCPU, torch._C.DispatchKey.AutocastCUDA)


@dataclasses.dataclass(frozen=True)
class MultilinearOp:
    """What autograd, vmap and autocast have to know of an op; `register` tells them.

    name: the op, in the namespace equiconv; `<name>_backward` is its gradient.
    groups: the positions of the tensor arguments, those that are linear only together in one group.
    zero: what stands for zero in the place of argument i, given all of them (None: left out).
    channel_axes: for the arguments that follow the tensors, each tensor's channel axis, counted from its end.
        Channels are independent, so vmap folds its dimension into them; y is as the first tensor.
    weights: the positions of arguments that stay float32 under autocast.
    """

    name: str
    groups: tuple[tuple[int, ...], ...]
    zero: Callable[[int, Tensors], MaybeTensor]
    channel_axes: Callable[..., tuple[int, ...]]
    weights: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return sum(map(len, self.groups))

    @property
    def forward(self) -> Any:
        return getattr(torch.ops.equiconv, self.name).default

    @property
    def backward(self) -> Any:
        return getattr(torch.ops.equiconv, f"{self.name}_backward").default

    def register(self, fake: Callable[..., Any], fake_backward: Callable[..., Any]) -> None:
        for op, fake_kernel, differentiate, fold in (
            (self.forward, fake, self._forward_function(), self._vmap_forward),
            (self.backward, fake_backward, self._backward_function(), self._vmap_backward),
        ):
            torch.library.register_fake(op.name(), fake_kernel, lib=_library)
            torch.library.register_vmap(op.name(), fold, lib=_library)
            _library.impl(op, _autograd_kernel(op, differentiate), "Autograd", with_keyset=True)
        for key in _AUTOCAST:
            _library.impl(self.forward, self._autocast_kernel(), key.name)

    # ---- autograd ------------------------------------------------------------------------------------

    def _forward_function(self) -> Any:
        op, n = self, self.count

        class Forward(_Function):  # type: ignore[misc]
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
                    terms = op._exchanges(ctx.saved_tensors, tangents[:n])
                    return _sum(op.forward(*exchanged, *ctx.rest) for _, exchanged in terms)

        return Forward

    def _backward_function(self) -> Any:
        op, n = self, self.count

        class Backward(_Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, below: Callable[..., tuple[Tensor, ...]], *args: Any) -> tuple[Tensor, ...]:
                ctx.set_materialize_grads(False)
                ctx.save_for_backward(*args[: 1 + n])
                ctx.save_for_forward(*args[: 1 + n])
                ctx.rest, ctx.needs = args[1 + n : -n], args[-n:]
                grads = below(*args)
                ctx.mark_non_differentiable(*(g for g, need in zip(grads, ctx.needs) if not need))
                return tuple(grads)

            @staticmethod
            def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
                grad_out, *tensors = ctx.saved_tensors
                need_grad_out, *needs = ctx.needs_input_grad[1 : 2 + n]
                present = [v if need else None for v, need in zip(cotangents, ctx.needs)]
                terms: list[list[MaybeTensor]] = [[None] * (1 + n)]
                with _no_autocast():
                    for group, exchanged in op._exchanges(tensors, present):
                        forward = op.forward(*exchanged, *ctx.rest) if need_grad_out else None
                        others = [need and i not in group for i, need in enumerate(needs)]
                        terms.append([forward, *op._gradients(grad_out, exchanged, ctx.rest, others)])
                return None, *map(_sum, zip(*terms)), *(None for _ in (*ctx.rest, *ctx.needs))

            @staticmethod
            def jvp(ctx: Any, _: None, grad_out_tangent: MaybeTensor, *tangents: Any) -> tuple[MaybeTensor, ...]:
                grad_out, *tensors = ctx.saved_tensors
                # Autograd wants a tangent wherever there is a gradient, even where nothing contributes.
                zeros = [torch.zeros_like(t) if need else None for t, need in zip(tensors, ctx.needs)]
                terms: list[Tensors] = [zeros]
                with _no_autocast():
                    if grad_out_tangent is not None:
                        terms.append(op._gradients(grad_out_tangent, tensors, ctx.rest, ctx.needs))
                    for group, exchanged in op._exchanges(tensors, tangents[:n]):
                        others = [need and i not in group for i, need in enumerate(ctx.needs)]
                        terms.append(op._gradients(grad_out, exchanged, ctx.rest, others))
                return tuple(map(_sum, zip(*terms)))

        return Backward

    def _gradients(
        self, grad_out: Tensor, tensors: Tensors, rest: tuple[Any, ...], needs: Sequence[bool]
    ) -> tuple[MaybeTensor, ...]:
        """The gradients that are needed; None in the place of the others."""
        if not any(needs):
            return (None,) * len(needs)
        return _only(self.backward(grad_out, *tensors, *rest, *needs), needs)

    def _exchanges(self, tensors: Tensors, others: Tensors) -> Iterator[tuple[tuple[int, ...], Tensors]]:
        """Each group with something in `others`, and the tensors with this group exchanged for it."""
        for group in self.groups:
            if any(others[i] is not None for i in group):
                exchanged = list(tensors)
                for i in group:
                    exchanged[i] = self.zero(i, tensors) if others[i] is None else others[i]
                yield group, exchanged

    # ---- vmap ----------------------------------------------------------------------------------------

    def _vmap_forward(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        n, size = self.count, info.batch_size
        axes = self.channel_axes(*args[n:])
        tensors = (_fold(t, dim, size, axis) for t, dim, axis in zip(args[:n], in_dims, axes))
        y = self.forward(*tensors, *args[n:])
        return _unfold(y, size, axes[0]), 0

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        n, size, needs = self.count, info.batch_size, args[-self.count :]
        axes = self.channel_axes(*args[1 + n : -n])
        tensors = (_fold(t, dim, size, axis) for t, dim, axis in zip(args[: 1 + n], in_dims, (axes[0], *axes)))
        grads = self.backward(*tensors, *args[1 + n :])
        present = [need and t is not None for need, t in zip(needs, args[1 : 1 + n])]
        unfolded = (_unfold(g, size, axis) if here else g for g, here, axis in zip(grads, present, axes))
        return tuple(unfolded), tuple(0 if here else None for here in present)

    # ---- autocast ------------------------------------------------------------------------------------

    def _autocast_kernel(self) -> Callable[..., Any]:
        def kernel(*args: Any) -> Any:
            tensors = [under_autocast(t, weight=i in self.weights) for i, t in enumerate(args[: self.count])]
            with _no_autocast():
                return self.forward(*tensors, *args[self.count :])

        return kernel


def _autograd_kernel(op: Any, differentiate: Any) -> Callable[..., Any]:
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
        if not torch._C._are_functorch_transforms_active():
            return differentiate.apply(below, *args)
        with enable_single_level_autograd_function():
            return differentiate.apply(below_with_outer_levels, *args)

    return kernel


def _sum(terms: Iterable[MaybeTensor]) -> Any:
    """The sum of the terms that are there; None if none is."""
    present = [term for term in terms if term is not None]
    return functools.reduce(torch.add, present) if present else None


def _only(grads: tuple[Tensor, ...], needs: Sequence[bool]) -> tuple[MaybeTensor, ...]:
    return tuple(grad if need else None for grad, need in zip(grads, needs))


def _fold(tensor: MaybeTensor, dim: int | None, size: int, axis: int) -> MaybeTensor:
    """Fold dimension `dim` of `size` entries (None: the same for all) into `axis`, counted from the end."""
    if tensor is None:
        return None
    batched = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return batched.movedim(0, axis - 1).flatten(axis - 1, axis)


def _unfold(tensor: Tensor, size: int, axis: int) -> Tensor:
    """Undo `_fold`: the folded dimension comes first."""
    return tensor.unflatten(axis, (size, tensor.shape[axis] // size)).movedim(axis - 1, 0)


def under_autocast(tensor: MaybeTensor, *, weight: bool = False) -> MaybeTensor:
    """`tensor` as autocast wants it: in its dtype, but float64 as it is, and so a weight in float32."""
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    left_alone = tensor.dtype == torch.float64 or (weight and tensor.dtype == torch.float32)
    if left_alone or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _no_autocast() -> Any:
    """Derivatives are computed in the dtypes of what was saved, whatever autocast says meanwhile."""
    cpu, cuda = map(torch._C.DispatchKeySet, _AUTOCAST)
    return torch._C._ExcludeDispatchKeyGuard(cpu | cuda)
