"""``pair_message``: sums of messages between the points of a graph, which are never stored."""

from __future__ import annotations

from torch import Tensor

from ..graph import Graph
from ..reference import pair_message as reference

__all__ = ["pair_message"]


def pair_message(x: Tensor, basis: Tensor, weight: Tensor, graph: Graph) -> Tensor:
    """Provisional: the reference."""
    return reference.pair_message(x, basis, weight, graph)
