"""The pairs of a graph as points with orientations."""

from __future__ import annotations

import itertools

import torch

from equiconv import geometry
from equiconv.graph import Graph


def test_edge_cloud_by_hand() -> None:
    # 0 → 1, 2 → 1 (twice), 1 → 0, and 2 → 2: points (1 ← 0), (1 ← 2), (0 ← 1); nobody sends to 2 or 3.
    graph = Graph.from_pairs(torch.tensor([0, 2, 2, 1, 2]), torch.tensor([1, 1, 1, 0, 2]), 4)
    cloud = geometry.edge_cloud(graph)
    points = list(zip(cloud.base.tolist(), cloud.toward.tolist(), strict=True))
    assert points == [(0, 1), (1, 0), (1, 2)]
    sends = {(0, 1), (2, 1), (1, 0)} | {(i, i) for i in range(4)}
    expected = {
        (i, j)
        for (i, (at, _)), (j, (to, _)) in itertools.product(enumerate(points), repeat=2)
        if (at, to) in sends
    }
    pairs = list(zip(cloud.graph.senders.tolist(), cloud.graph.receivers.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected
    positions = torch.randn(4, 3, dtype=torch.float64)
    orientations = cloud.orientations(positions)
    torch.testing.assert_close(
        orientations[0], (positions[1] - positions[0]) / (positions[1] - positions[0]).norm()
    )


def test_edge_cloud_of_nothing() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    for points in (0, 3):
        cloud = geometry.edge_cloud(Graph.from_pairs(nobody, nobody, points))
        assert cloud.base.numel() == cloud.graph.num_pairs == 0
