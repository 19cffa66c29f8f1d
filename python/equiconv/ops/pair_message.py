"""``pair_message``: sums of messages between the points of a graph, which are never stored."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Graph
from ..reference import pair_message as reference
from .check import check_device, check_floating, check_kind, require
from .multilinear import MultilinearOp

__all__ = ["pair_message"]


def pair_message(x: Tensor, basis: Tensor, weight: Tensor, graph: Graph) -> Tensor:
    r"""What every receiver of `graph` is sent: for each pair and orientation, features times a filter.

    .. math:: \text{out}[r, o, c] = \sum_{e \to r} \Big(\sum_k \text{basis}[e, o, k]\,
              \text{weight}[k, c]\Big)\, x[s(e), o, c]

    over the pairs e whose receiver is r; s(e) is the pair's sender. Neither filters nor messages, tensors of
    shape (E, O, C), ever exist.

    Args:
        x: (S, O, C), the features of S senders in O orientations, or (S, C). float32, float64, bfloat16 or
            float16.
        basis: (E, O, K), values of K functions at every pair, in the order of ``graph.senders`` and
            ``graph.receivers``, or (E, K), the same for all orientations. The dtype of x.
        weight: (K, C). The dtype of x, or float32 beside a half type.
        graph: the E pairs, a :class:`Graph` on the device of x.

    Returns:
        (R, O, C) or (R, C), of the dtype of x, contiguous; zero for receivers without a pair. Half types are
        computed in float32 and rounded once.

    Any strides are read in place. Extra memory is O(threads (K C + O C)). Derivatives of every order are
    supported, as are torch.compile, torch.export, torch.func (vmap calls once for each entry) and autocast: x
    and the basis are cast to autocast's dtype, the weight stays float32. The same input gives the same
    bits, on every run, for any number of threads and in whatever order the pairs are given, as long
    as several pairs of the same two points keep theirs.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    The separable convolution of Bekkers et al., "Fast, Expressive SE(n) Equivariant Networks through
    Weight-Sharing in Position-Orientation Space" (2024, arXiv:2310.02970), over positions; with (E, K) a
    continuous-filter convolution (Schütt et al., SchNet, 2017, arXiv:1706.08566).
    """
    if weight.dim() == 3:  # to be replaced by moments
        return reference.pair_message(x, basis, weight, graph)
    out: Tensor = torch.ops.equiconv.pair_message(x, basis, weight, *graph.by_receiver, *graph.by_sender)
    return out


_OP = "pair_message"


# ---- the dispatcher ops: fake kernels, and what is generic over multilinear ops --------------------------


def _check(x: Tensor, basis: Tensor, weight: Tensor, *graph: Tensor) -> list[int]:
    """The shape of the result."""
    receiver_offsets, senders, _, sender_offsets, _, _ = graph
    check_floating(_OP, "x", x)
    require(
        x.dim() in (2, 3), lambda: f"{_OP}: x must be (S, O, C) or (S, C), but has shape {tuple(x.shape)}"
    )
    check_device(_OP, "graph", senders, x)
    check_kind(_OP, "basis", basis, x)
    ranks = "(E, K) where x is (S, C)" if x.dim() == 2 else "(E, O, K) or (E, K)"
    require(
        basis.dim() == 2 or (basis.dim() == 3 and x.dim() == 3),
        lambda: f"{_OP}: basis must be {ranks}, but has shape {tuple(basis.shape)}",
    )
    check_kind(_OP, "weight", weight, x, weight=True)
    require(weight.dim() == 2, lambda: f"{_OP}: weight must be (K, C), but has shape {tuple(weight.shape)}")
    have, want = x.shape[0], sender_offsets.shape[0] - 1
    require(
        have == want, lambda: f"{_OP}: x must have a row for each sender of graph, {want}, but has {have}"
    )
    pairs, rows = senders.shape[0], basis.shape[0]
    require(
        rows == pairs, lambda: f"{_OP}: basis must have a row for each pair of graph, {pairs}, but has {rows}"
    )
    if basis.dim() == 3:
        require(
            basis.shape[1] == x.shape[1],
            lambda: f"{_OP}: basis must have the orientations of x, {x.shape[1]}, but has {basis.shape[1]}",
        )
    functions, channels = weight.shape
    require(
        functions == basis.shape[-1],
        lambda: f"{_OP}: weight must have the functions of basis, {basis.shape[-1]}, but has {functions}",
    )
    require(
        channels == x.shape[-1],
        lambda: f"{_OP}: weight must have the channels of x, {x.shape[-1]}, but has {channels}",
    )
    return [receiver_offsets.shape[0] - 1, *x.shape[1:]]


def _fake(x: Tensor, basis: Tensor, weight: Tensor, *graph: Tensor) -> Tensor:
    return x.new_empty(_check(x, basis, weight, *graph))


def _fake_backward(
    grad_out: Tensor, x: Tensor, basis: Tensor, weight: Tensor, *rest: Tensor | bool
) -> tuple[Tensor, ...]:
    graph, needs = rest[:-3], rest[-3:]
    shape = _check(x, basis, weight, *graph)  # type: ignore[arg-type]
    check_kind(_OP, "grad_out", grad_out, x)
    require(
        list(grad_out.shape) == shape,
        lambda: (
            f"{_OP}: grad_out must have the shape of the result, {tuple(shape)}, but has "
            f"{tuple(grad_out.shape)}"
        ),
    )
    return tuple(
        argument.new_empty(argument.shape) if need else x.new_empty(0)
        for argument, need in zip((x, basis, weight), needs, strict=True)
    )


MultilinearOp(
    name=_OP,
    arguments=("x", "basis", "weight"),
    groups=((0,), (1,), (2,)),
    weights=(2,),
    others=("graph",),
).register(_fake, _fake_backward)
