"""``pair_moments``: sums over pairs of products of every basis function with every channel."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Graph
from .check import check_device, check_floating, check_kind, require
from .multilinear import MultilinearOp

__all__ = ["pair_moments"]


def pair_moments(x: Tensor, basis: Tensor, graph: Graph) -> Tensor:
    r"""For every receiver of `graph` the features that it is sent, weighted with each basis function.

    .. math:: \text{out}[r, o, k, c] = \sum_{e \to r} \text{basis}[e, o, k]\, x[s(e), o, c]

    over the pairs e whose receiver is r; s(e) is the pair's sender. A linear layer on the last two axes makes
    a convolution with dense filters of it (which :func:`pair_message` does, without keeping this tensor);
    with spherical harmonics as basis it is the sum of a tensor-field network.

    Args:
        x: (S, O, C), the features of S senders in O orientations, or (S, C). float32, float64, bfloat16 or
            float16.
        basis: (E, O, K), values of K functions at every pair, in the order of ``graph.senders`` and
            ``graph.receivers``, or (E, K), the same for all orientations. The dtype of x.
        graph: the E pairs, a :class:`Graph` on the device of x.

    Returns:
        (R, O, K, C) or (R, K, C), of the dtype of x, contiguous; zero for receivers without a pair. Half
        types are computed in float32 and rounded once.

    Any strides are read in place. Extra memory is O(threads K C), on CUDA none, and for the gradient of x a
    row of C numbers for each pair, of one orientation at a time (or of more that fit in 4 MB, on CUDA in 32).
    Derivatives of every order are supported, as are torch.compile, torch.export, torch.func (vmap calls once
    for each entry) and autocast. The same input gives the same bits, on every run, for any number of threads
    and in whatever order the pairs are given, as long as several pairs of the same two points keep theirs.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Thomas et al., Tensor field networks (2018, arXiv:1802.08219), equation 3 before its sum over channels.
    """
    out: Tensor = torch.ops.equiconv.pair_moments(x, basis, *graph.by_receiver, *graph.by_sender)
    return out


_OP = "pair_moments"


# ---- the dispatcher ops: fake kernels, and what is generic over multilinear ops --------------------------


def _check(x: Tensor, basis: Tensor, *graph: Tensor) -> list[int]:
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
    return [receiver_offsets.shape[0] - 1, *x.shape[1:-1], basis.shape[-1], x.shape[-1]]


def _fake(x: Tensor, basis: Tensor, *graph: Tensor) -> Tensor:
    return x.new_empty(_check(x, basis, *graph))


def _fake_backward(grad_out: Tensor, x: Tensor, basis: Tensor, *rest: Tensor | bool) -> tuple[Tensor, ...]:
    graph, needs = rest[:-2], rest[-2:]
    shape = _check(x, basis, *graph)  # type: ignore[arg-type]
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
        for argument, need in zip((x, basis), needs, strict=True)
    )


MultilinearOp(
    name=_OP,
    arguments=("x", "basis"),
    groups=((0,), (1,)),
    others=("graph",),
).register(_fake, _fake_backward)
