"""``gate``: a value times an activation of its gate, with both biases, in one pass over memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reference.gate import ACTIVATIONS
from .check import MaybeTensor, check_floating, check_kind, check_signal, name_of, number_of, require
from .multilinear import ClosedOp, Tensors, total

__all__ = ["gate"]


def gate(
    x: Tensor,
    gate: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    gate_bias: Tensor | None = None,
    activation: str = "sigmoid",
    dim: int = -1,
) -> Tensor:
    r"""A value times an activation of its gate.

    .. math:: y = (x + \text{bias}) \odot \text{act}(\text{gate} + \text{gate\_bias})

    With "sigmoid" the gated linear unit of :func:`torch.nn.functional.glu`, with "silu" SwiGLU, "gelu" GEGLU,
    "relu" ReGLU, with "identity" the bilinear unit and quadratic neurons, (W₁x + b₁) ⊙ (W₂x + b₂).

    Args:
        x: (…, D, …), D along `dim`, with 1 to 16 dimensions. Where there is no gate (…, 2D, …), values first
            and gates second. float32, float64, bfloat16 or float16.
        gate: shape and dtype of x.
        bias, gate_bias: (D,). The dtype of x, or float32 beside a half type. Absent: 0.
        activation: "identity", "sigmoid", "silu", "gelu" (u P(X <= u) of a normal X, as PyTorch's default),
            "relu" or "tanh".
        dim: the axis of D.

    Returns:
        (…, D, …), of the dtype of x, contiguous. Half types are computed in float32 and rounded once.

    Any strides are read in place, and where they are packed values and gates get one gradient, uncopied.
    Nothing is allocated but results and, for the gradients of biases, at most a 16th of a gradient of x.
    Derivatives of every order up to 16 are supported, as are torch.compile, torch.export, torch.func and
    autocast: x and the gate are cast to autocast's dtype, biases stay float32. The same input gives the same
    bits, on every run and for any number of threads.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Dauphin et al., Language Modeling with Gated Convolutional Networks (2017, arXiv:1612.08083); Shazeer, GLU
    Variants Improve Transformer (2020, arXiv:2002.05202).
    """
    number = number_of(_OP, "activation", activation, NUMBERS)
    y: Tensor = torch.ops.equiconv.gate(x, gate, bias, gate_bias, number, dim, 0)
    return y


_OP = "gate"
NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}
_MAX_DIMENSIONS = _MAX_ORDER = 16


# ---- the dispatcher ops: fake kernels ---------------------------------------------------------------------


def _check(
    x: Tensor,
    gate: MaybeTensor,
    bias: MaybeTensor,
    gate_bias: MaybeTensor,
    activation: int,
    dim: int,
    order: int,
) -> list[int]:
    """The shape of the result."""
    name_of(_OP, "activation", activation, NUMBERS)
    require(0 <= order <= _MAX_ORDER, lambda: f"{_OP}: order must be 0 to {_MAX_ORDER}, but is {order}")
    check_floating(_OP, "x", x)
    rank = x.dim()
    require(
        1 <= rank <= _MAX_DIMENSIONS,
        lambda: f"{_OP}: x must have 1 to {_MAX_DIMENSIONS} dimensions, but has {rank}",
    )
    require(
        -rank <= dim < rank,
        lambda: f"{_OP}: dim must be {-rank} to {rank - 1} where x has shape {tuple(x.shape)}, but is {dim}",
    )
    shape = list(x.shape)
    check_signal(_OP, "gate", gate, x)
    if gate is None:
        require(
            shape[dim] % 2 == 0,
            lambda: (
                f"{_OP}: x must have an even size along dim where there is no gate, but has shape "
                f"{tuple(x.shape)}"
            ),
        )
        shape[dim] //= 2
    for name, tensor in (("bias", bias), ("gate_bias", gate_bias)):
        if tensor is not None:
            check_kind(_OP, name, tensor, x, weight=True)
            require(
                tensor.dim() == 1 and tensor.shape[0] == shape[dim],
                lambda name=name, tensor=tensor: (  # type: ignore[misc]
                    f"{_OP}: {name} must have shape ({shape[dim]},), one for each channel, but has "
                    f"{tuple(tensor.shape)}"
                ),
            )
    return shape


def _fake(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(_check(x, *rest))


def _fake_backward(grad_out: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    others, needs = rest[:-4], rest[-4:]
    shape = _check(x, *others)
    check_kind(_OP, "grad_out", grad_out, x)
    require(
        list(grad_out.shape) == shape,
        lambda: (
            f"{_OP}: grad_out must have the shape of the result, {tuple(shape)}, but has "
            f"{tuple(grad_out.shape)}"
        ),
    )
    return tuple(
        argument.new_empty(argument.shape) if need and argument is not None else x.new_empty(0)
        for argument, need in zip((x, *others[:3]), needs, strict=True)
    )


# ---- the dispatcher ops: derivatives ----------------------------------------------------------------------


class GateOp(ClosedOp):
    """y = X aₙ, X = x + bias, aₙ the n-th derivative of the activation at gate + gate_bias. For changes
    X' and u' of X and the activation's argument, y' = X' aₙ + u' X aₙ₊₁: the op again, of an order more."""

    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        term = self._change(tensors, rest, tangents)
        assert term is not None
        return term

    def _change(self, tensors: Tensors, rest: tuple[Any, ...], changes: Tensors) -> MaybeTensor:
        """y' as above."""
        activation, dim, order = rest
        packed = tensors[1] is None
        tensors, changes = (_apart(each, dim, packed=packed) for each in (tensors, changes))
        _, gate, _, gate_bias = tensors
        of_x, of_u = _values(changes, tensors, dim), _argument(changes, tensors, dim)
        terms = []
        if of_x is not None:
            terms.append(self.forward(of_x[0], gate, of_x[1], gate_bias, *rest))
        if of_u is not None:
            terms.append(of_u * self.forward(*tensors, activation, dim, order + 1))
        return total(terms)

    def _changes_of_gradients(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        changes: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        """The terms of the gradients' changes; equally of the gradients of ⟨grad_out, y'⟩."""
        activation, dim, order = rest
        packed = tensors[1] is None
        apart, changes = (_apart(each, dim, packed=packed) for each in (tensors, changes))
        of_x, of_u = _values(changes, apart, dim), _argument(changes, apart, dim)
        if of_x is not None:  # of grad_out X aₙ₊₁, by X
            gate, gate_bias = apart[1], apart[3]
            need_gate = needs[0] if packed else needs[1]
            changed = (of_x[0], gate, of_x[1], gate_bias)
            grads = self.gradients(grad_out, changed, rest, (False, need_gate, False, needs[3]))
            if packed and grads[1] is not None:
                grads = (torch.cat([torch.zeros_like(grads[1]), grads[1]], dim), None, None, grads[3])
            yield grads
        if of_u is not None:  # of both gradients, by u
            yield self.gradients(grad_out * of_u, tensors, (activation, dim, order + 1), needs)

    def gradient_cotangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        cotangents: Tensors,
        need_grad_out: bool,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if need_grad_out:
            yield [self._change(tensors, rest, cotangents), *(None for _ in tensors)]
        for grads in self._changes_of_gradients(grad_out, tensors, rest, cotangents, needs):
            yield [None, *grads]

    def gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        return self._changes_of_gradients(grad_out, tensors, rest, tangents, needs)

    # ---- vmap: one more axis in front, unless every example has its own biases ----

    def _vmap_forward(self, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        if any(dim is not None for dim in in_dims[2:4]):
            return super()._vmap_forward(info, in_dims, *args)
        x, gate, bias, gate_bias, activation, dim, order = args
        batched = [_in_front(t, d, info.batch_size) for t, d in zip((x, gate), in_dims, strict=False)]
        return self.forward(
            *batched, bias, gate_bias, activation, _from_the_end(dim, x, in_dims[0]), order
        ), 0

    def _vmap_backward(
        self, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        grad_out, x, gate, bias, gate_bias, activation, dim, order, *needs = args
        if any(dim is not None for dim in in_dims[3:5]) or needs[2] or needs[3]:
            return super()._vmap_backward(info, in_dims, *args)
        batched = [
            _in_front(t, d, info.batch_size) for t, d in zip((grad_out, x, gate), in_dims, strict=False)
        ]
        rest = activation, _from_the_end(dim, x, in_dims[1]), order
        grads = self.backward(*batched, bias, gate_bias, *rest, *needs)
        need_gate = needs[1] and gate is not None
        return grads, (0 if needs[0] else None, 0 if need_gate else None, None, None)


def _in_front(tensor: MaybeTensor, dim: int | None, size: int) -> MaybeTensor:
    if tensor is None:
        return None
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _from_the_end(dim: int, x: Tensor, batch_dim: int | None) -> int:
    """An axis of x as each example has it."""
    return dim if dim < 0 else dim - (x.dim() - (batch_dim is not None))


def _apart(tensors: Tensors, dim: int, *, packed: bool) -> Tensors:
    """Value and gate as two, where they are packed."""
    x, _, bias, gate_bias = tensors
    return (*x.chunk(2, dim), bias, gate_bias) if packed and x is not None else tensors


def _along(bias: Tensor, like: Tensor, dim: int) -> Tensor:
    """A change of a bias, as one of what it is added to."""
    shape = [1] * like.dim()
    shape[dim] = -1
    return bias.to(like.dtype).view(shape).expand(like.shape)


def _values(changes: Tensors, tensors: Tensors, dim: int) -> tuple[Tensor, MaybeTensor] | None:
    """What X changes by, as a value and a bias."""
    x, _, bias, _ = changes
    if x is not None:
        return x, bias
    like = tensors[0]
    assert like is not None
    return None if bias is None else (_along(bias, like, dim), None)


def _argument(changes: Tensors, tensors: Tensors, dim: int) -> MaybeTensor:
    """What the activation's argument changes by."""
    _, gate, _, bias = changes
    like = tensors[1]
    assert like is not None
    return total([gate, None if bias is None else _along(bias, like, dim)])


GateOp(name=_OP, arguments=("x", "gate", "bias", "gate_bias"), weights=(2, 3)).register(_fake, _fake_backward)
