"""``implicit_filter``: the taps of long filters, computed from their positions by a network of sines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..reference import implicit_filter as reference
from .check import MaybeTensor, check_floating, check_kind, require
from .multilinear import ClosedOp, Tensors, changes_of
from .pair_basis import gradients

__all__ = ["implicit_filter"]


def implicit_filter(
    features: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    output_weight: Tensor,
    rates: Tensor,
) -> Tensor:
    r"""Long filters whose taps a small network computes from their positions, times a window that decays.

    .. math::
        h_{i,0} = \sin(W_{first}\, z_i + b_{first}), \qquad
        h_{i,m} = \sin(W_{inner,m}\, h_{i,m-1} + b_{inner,m}), \qquad
        \text{filter}[d, i] = e^{-t_i\, \text{rates}_d}\, (W_{out}\, h_{i,M})_d

    with the features z of position i, of which t is the first.

    Args:
        features: (L, E), E at least 1. float32, float64, bfloat16 or float16.
        first_weight, first_bias: (H, E) and (H,). The dtype of features, as all that follow.
        inner_weight, inner_bias: (M, H, H) and (M, H), M inner layers; M may be 0.
        output_weight: (D, H).
        rates: (D,), in units of 1 / t.

    Returns:
        (D, L), of the dtype of features, contiguous: a filter that is shared by the batch, as
        :func:`fft_conv` takes it. Half types are computed in float32 and rounded once.

    All layers of some positions are computed while these are in the caches; backward computes them anew, so
    nothing is kept but the arguments. Extra memory on a CPU is a copy of the weights, O(threads (M H + D))
    and, backward, at most 32 times the weights; on CUDA what 16384 positions have between the layers.
    Derivatives of every order are supported: the gradients of weights and biases have kernels; those of
    features and rates, derivatives of gradients, and everything in forward mode and in torch.func's
    transforms are the plain expression of :mod:`equiconv.reference`. torch.compile and torch.export take it
    as it is; autocast leaves float32 as it is. The same input gives the same bits, on
    every run and, but for the gradients of features and rates, for any number of threads.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Poli et al., Hyena Hierarchy, ICML 2023, arXiv:2302.10866, section 3.3; ω is part of weights and biases.
    :class:`equiconv.nn.ImplicitFilter` has the features and the parameters.
    """
    tensors = features, first_weight, first_bias, inner_weight, inner_bias, output_weight, rates
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return reference.implicit_filter(*tensors)
    out: Tensor = torch.ops.equiconv.implicit_filter(*tensors)
    return out


_OP = "implicit_filter"
_ARGUMENTS = (
    "features",
    "first_weight",
    "first_bias",
    "inner_weight",
    "inner_bias",
    "output_weight",
    "rates",
)
_BY_REFERENCE = (0, 6)  # features and rates, whose gradients have no kernel


# ---- the dispatcher ops: fake kernels ---------------------------------------------------------------------


def _check(*tensors: Tensor) -> list[int]:
    """The shape of the result."""
    features, first_weight, _, inner_weight, _, output_weight, _ = tensors
    check_floating(_OP, "features", features)
    ranks = (
        ("features", features, "(L, E)"),
        ("first_weight", first_weight, "(H, E)"),
        ("inner_weight", inner_weight, "(M, H, H)"),
        ("output_weight", output_weight, "(D, H)"),
    )
    for name, tensor, axes in ranks:
        require(
            tensor.dim() == axes.count(",") + 1,
            lambda name=name, tensor=tensor, axes=axes: (  # type: ignore[misc]
                f"{_OP}: {name} must be {axes}, but has shape {tuple(tensor.shape)}"
            ),
        )
    length, width = features.shape
    require(
        width >= 1,
        lambda: f"{_OP}: features must be (L, E) with E at least 1, but has shape {tuple(features.shape)}",
    )
    order, inner, channels = first_weight.shape[0], inner_weight.shape[0], output_weight.shape[0]
    shapes = ((order, width), (order,), (inner, order, order), (inner, order), (channels, order), (channels,))
    for name, tensor, shape in zip(_ARGUMENTS[1:], tensors[1:], shapes, strict=True):
        _check_like(name, tensor, features, shape)
    return [channels, length]


def _check_like(name: str, tensor: Tensor, features: Tensor, shape: tuple[int, ...]) -> None:
    require(
        tuple(tensor.shape) == shape,
        lambda: f"{_OP}: {name} must have shape {tuple(shape)}, but has {tuple(tensor.shape)}",
    )
    check_kind(_OP, name, tensor, features, of="features")


def _fake(*tensors: Tensor) -> Tensor:
    return tensors[0].new_empty(_check(*tensors))


def _fake_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    tensors, needs = args[:7], args[7:]
    _check_like("grad_out", grad_out, tensors[0], tuple(_check(*tensors)))
    return tuple(
        t.new_empty(t.shape) if need else t.new_empty(0) for t, need in zip(tensors, needs, strict=True)
    )


# ---- the dispatcher ops: derivatives ----------------------------------------------------------------------


class _FilterOp(ClosedOp):
    """Gradients of weights and biases by a kernel, all other derivatives by the definition."""

    def gradients(
        self, grad_out: Tensor, tensors: Tensors, rest: tuple[Any, ...], needs: Sequence[bool]
    ) -> tuple[MaybeTensor, ...]:
        of_kernel = [need and i not in _BY_REFERENCE for i, need in enumerate(needs)]
        grads = [*super().gradients(grad_out, tensors, rest, of_kernel)]
        others = [need and i in _BY_REFERENCE for i, need in enumerate(needs)]
        if any(others):
            made = gradients(reference.implicit_filter, tensors, others, grad_out)
            grads = [a if b is None else b for a, b in zip(grads, made, strict=True)]
        return tuple(grads)

    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        change, *_ = changes_of(reference.implicit_filter, None, tensors, tangents)
        assert change is not None
        return change

    def gradient_cotangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        cotangents: Tensors,
        need_grad_out: bool,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if any(v is not None for v in cotangents):
            made = changes_of(reference.implicit_filter, grad_out, tensors, cotangents)
            yield [t if need else None for t, need in zip(made, (need_grad_out, *needs), strict=True)]

    def gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if any(v is not None for v in tangents):
            _, *made = changes_of(reference.implicit_filter, grad_out, tensors, tangents)
            yield [t if need else None for t, need in zip(made, needs, strict=True)]


_FilterOp(name=_OP, arguments=_ARGUMENTS, weights=tuple(range(7))).register(_fake, _fake_backward)
