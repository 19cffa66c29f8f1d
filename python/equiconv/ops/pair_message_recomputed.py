"""``pair_message`` with a network in the place of a basis, whose rows are computed tile by tile.

Forward takes the pairs of some receivers at a time: their basis, then their messages. Backward does the same
again for the gradients of weight and network; that of x is a sum of messages the other way round, over the
pairs of some senders at a time, whose basis is computed once more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..graph import Csr, Graph
from ..reference import pair_basis as reference
from .check import MaybeTensor, require
from .pair_basis import (
    BasisNetwork,
    Tiled,
    autocasts,
    check_network,
    gradients,
    no_autocast,
    pairs_together,
    takes_whole_tensors,
)
from .registration import differentiated, needed, under_autocast

__all__ = ["recomputed"]


def recomputed(x: Tensor, network: BasisNetwork, weight: Tensor, graph: Graph) -> Tensor:
    require(
        weight.dim() == 2,
        lambda: f"pair_message: weight must be (K, C) beside a BasisNetwork, but has {tuple(weight.shape)}",
    )
    if autocasts(x):
        x, weight = under_autocast(x), under_autocast(weight, weight=True)
    network = network.under_autocast()
    check_network("pair_message", network)
    have, want = network.features.shape[0], graph.num_pairs
    require(
        have == want,
        lambda: f"pair_message: features must have a row for each pair of graph, {want}, but has {have}",
    )
    with no_autocast(x):
        if takes_whole_tensors() or graph.num_pairs == 0:
            return _whole(x, weight, graph, network)
        out: Tensor = _Recomputed.apply(graph, x, weight, *network)  # type: ignore[no-untyped-call]
        return out


def _whole(x: Tensor, weight: Tensor, graph: Graph, network: BasisNetwork) -> Tensor:
    out: Tensor = torch.ops.equiconv.pair_message(
        x, network.basis(), weight, *graph.by_receiver, *graph.by_sender
    )
    return out


class _Tile(NamedTuple):
    """Consecutive groups of pairs, as a graph of their own. rows: the pairs, in its order."""

    groups: slice
    rows: Tensor
    graph: tuple[Tensor, ...]


def _tiles(groups: Csr, other_side: Csr, pairs: int) -> Iterator[_Tile]:
    """Groups with about so many pairs together; of a device, this waits for its queue."""
    total = groups.rows.shape[0]
    goals = torch.arange(pairs, total + pairs, pairs, device=groups.offsets.device)
    ends = torch.searchsorted(groups.offsets, goals.clamp_max(total).to(groups.offsets.dtype), right=True) - 1
    ends[-1] = groups.offsets.shape[0] - 1
    cuts = torch.unique(torch.cat((ends.new_zeros(1), ends)))
    bounds = list(zip(cuts.tolist(), groups.offsets[cuts].tolist(), strict=True))
    for (first, start), (last, end) in itertools.pairwise(bounds):
        rows = groups.rows[start:end]
        here = torch.arange(end - start, dtype=rows.dtype, device=rows.device)
        neighbours = groups.neighbours[start:end]
        # Nothing is asked of the other side but how many points it has.
        graph = (
            groups.offsets[first : last + 1] - start,
            neighbours,
            here,
            other_side.offsets,
            neighbours,
            here,
        )
        yield _Tile(slice(first, last), rows.long(), graph)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, x: Tensor, weight: Tensor, *network: Any) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(x, weight, *network)
        return _messages(x, weight, BasisNetwork(*network), graph.by_receiver, graph.by_sender)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[MaybeTensor, ...]:
        saved = ctx.saved_tensors  # once: to ask for them may be to compute them again
        x, weight, *rest = saved
        network, graph = BasisNetwork(*rest), ctx.graph
        needs = needed(ctx, saved)
        if differentiated(grad_out):

            def whole(x: Tensor, weight: Tensor, *network: Any) -> Tensor:
                return _whole(x, weight, graph, BasisNetwork(*network))

            return None, *gradients(whole, (x, weight, *network), needs, grad_out)

        need_x, need_weight, *needs_of_network = needs
        grad_x = None
        if need_x:
            grad_x = _messages(grad_out, weight, network, graph.by_sender, graph.by_receiver)
        grad_weight = (
            torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            if need_weight
            else None
        )
        tiled = Tiled(network, needs_of_network)
        if need_weight or any(needs_of_network):
            for tile in _tiles(graph.by_receiver, graph.by_sender, pairs_together(network)):

                def gradient(basis: Tensor, tile: _Tile = tile) -> Tensor:
                    _, grad_basis, of_weight = torch.ops.equiconv.pair_message_backward(
                        grad_out[tile.groups],
                        x,
                        basis,
                        weight,
                        *tile.graph,
                        False,
                        any(needs_of_network),
                        need_weight,
                    )
                    if grad_weight is not None:
                        grad_weight.add_(of_weight)
                    return grad_basis  # type: ignore[no-any-return]

                tiled.backward(tile.rows, gradient)
        of_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return None, grad_x, of_weight, *tiled.results()


def _messages(x: Tensor, weight: Tensor, network: BasisNetwork, groups: Csr, other_side: Csr) -> Tensor:
    """What each group is sent."""
    out = x.new_empty(groups.offsets.shape[0] - 1, *x.shape[1:])
    for tile in _tiles(groups, other_side, pairs_together(network)):
        basis = reference.pair_basis(*network.of(tile.rows))
        out[tile.groups] = torch.ops.equiconv.pair_message(x, basis, weight, *tile.graph)
    return out
