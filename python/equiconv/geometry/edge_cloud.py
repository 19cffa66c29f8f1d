"""The pairs of a graph as points with orientations."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..graph import Graph


@dataclasses.dataclass(frozen=True)
class EdgeCloud:
    """The pairs of a graph as points of a cloud with orientations.

    base: (M,), the point of the graph that each lies at: the receiver of its pair. toward: (M,), the sender,
    which it looks at. graph: which of the M points send to which.
    """

    base: Tensor
    toward: Tensor
    graph: Graph

    def orientations(self, positions: Tensor) -> Tensor:
        """(M, n): unit vectors from each point's position to where it looks. Two points at the same position
        have no direction: 0."""
        along = positions[self.toward] - positions[self.base]
        squared = along.square().sum(-1, keepdim=True)
        length = torch.where(squared > 0, squared, 1).sqrt()
        return along / length


def edge_cloud(graph: Graph) -> EdgeCloud:
    """Every pair of two different points becomes a point at its receiver; pairs become pairs of these.

    All points at s send to all points at r where s sends to r in `graph`, and all points at one place send to
    one another. Repeated pairs count once, self-loops not at all.
    """
    n = graph.num_receivers
    keys = torch.unique(graph.receivers.long() * n + graph.senders.long())  # by receiver, then sender
    base, toward = keys // n, keys % n
    different = base != toward
    base, toward = base[different], toward[different]

    # The points at place i are start[i] … start[i] + count[i] - 1.
    count = torch.bincount(base, minlength=n)
    start = count.cumsum(0) - count
    everywhere = torch.arange(n, device=base.device)
    to, by = torch.cat((base, everywhere)), torch.cat((toward, everywhere))
    block = count[by] * count[to]
    pair = torch.repeat_interleave(block)
    within = torch.arange(pair.shape[0], device=pair.device) - (block.cumsum(0) - block)[pair]
    width = count[to][pair]
    senders, receivers = start[by][pair] + within // width, start[to][pair] + within % width
    return EdgeCloud(base, toward, Graph.from_pairs(senders, receivers, base.shape[0]))
