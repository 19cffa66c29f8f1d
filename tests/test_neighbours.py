from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from equiconv.neighbours import within_radius

pytest.importorskip("vesin")

Pair = tuple[int, int, tuple[float, ...]]
"""Receiver, sender, shift."""


def pairs_by_distance(positions: Tensor, radius: float, images: Tensor) -> list[Pair]:
    """By trying everything."""
    found = []
    for image in images:
        distance = (positions[None] + image - positions[:, None]).norm(dim=-1)
        for r, s in (distance < radius).nonzero().tolist():
            if r != s or bool(image.any()):
                found.append((r, s, tuple(round(v, 9) for v in image.tolist())))
    return sorted(found)


def found(positions: Tensor, radius: float, **options: Tensor) -> list[Pair]:
    graph, shifts = within_radius(positions, radius, **options)
    pairs = zip(graph.receivers.tolist(), graph.senders.tolist(), shifts.tolist(), strict=True)
    listed = [(r, s, tuple(round(v, 9) for v in shift)) for r, s, shift in pairs]
    assert [p[:2] for p in listed] == sorted(p[:2] for p in listed)
    return sorted(listed)


@pytest.mark.parametrize("space", [1, 2, 3])
def test_free_points(space: int) -> None:
    positions = torch.rand(40, space, dtype=torch.float64)
    assert found(positions, 0.3) == pairs_by_distance(positions, 0.3, torch.zeros(1, space))


def test_a_periodic_cell() -> None:
    cell = torch.tensor([[1.0, 0.1, 0], [0, 1.2, 0], [0.3, 0, 0.9]], dtype=torch.float64)
    positions = torch.rand(6, 3, dtype=torch.float64) @ cell
    steps = torch.tensor(list(itertools.product(range(-3, 4), repeat=3)), dtype=torch.float64)
    assert found(positions, 1.1, cell=cell) == pairs_by_distance(positions, 1.1, steps @ cell)


@pytest.mark.parametrize("periodic", [False, True])
def test_undirected_pairs_are_the_same(periodic: bool) -> None:
    """Each once, then all the other way round; a point and its own image too."""
    positions = torch.rand(12, 3, dtype=torch.float64)
    options = {"cell": torch.eye(3, dtype=torch.float64)} if periodic else {}
    graph, shifts = within_radius(positions, 1.1, undirected=True, **options)
    rows = graph.num_rows
    assert graph.num_pairs == 2 * rows > 0
    assert torch.equal(graph.senders[rows:], graph.receivers[:rows])
    assert torch.equal(shifts[rows:], -shifts[:rows])
    ends = zip(graph.receivers.tolist(), graph.senders.tolist(), shifts.tolist(), strict=True)
    listed = sorted((r, s, tuple(round(v, 9) + 0.0 for v in shift)) for r, s, shift in ends)
    assert listed == found(positions, 1.1, **options)


def test_shifts_follow_the_cell() -> None:
    cell = torch.eye(3, dtype=torch.float64, requires_grad=True)
    graph, shifts = within_radius(torch.rand(4, 3, dtype=torch.float64), 0.9, cell=cell)
    assert graph.num_pairs
    (strain,) = torch.autograd.grad(shifts.square().sum(), cell)
    assert strain.abs().max() > 0


def test_clouds_do_not_meet() -> None:
    positions = torch.rand(30, 3, dtype=torch.float64)
    graph, _ = within_radius(positions, 10.0, sizes=[10, 0, 20])
    cloud = torch.arange(30) >= 10
    assert torch.equal(cloud[graph.senders], cloud[graph.receivers])
    assert graph.num_pairs == 10 * 9 + 20 * 19


def test_no_points() -> None:
    graph, shifts = within_radius(torch.zeros(0, 3), 1.0)
    assert (graph.num_pairs, graph.num_receivers, tuple(shifts.shape)) == (0, 0, (0, 3))


@pytest.mark.parametrize(
    ("positions", "options", "sentence"),
    [
        (torch.zeros(3, 4), {}, "positions must be (N, 1), (N, 2) or (N, 3), but has shape (3, 4)"),
        (torch.tensor([[0.0], [torch.nan]]), {}, "positions must be finite, but row 1 is not"),
        (torch.zeros(3, 3), {"radius": -1.0}, "radius must be positive and finite, but is -1.0"),
        (torch.zeros(3, 3), {"radius": 0}, "radius must be positive and finite, but is 0"),
        (torch.zeros(3, 3), {"radius": math.inf}, "radius must be positive and finite, but is inf"),
        (torch.zeros(3, 3), {"radius": math.nan}, "radius must be positive and finite, but is nan"),
        (
            torch.zeros(3, 3),
            {"sizes": [2, 2]},
            "sizes must add up to the 3 points of positions, but is [2, 2]",
        ),
        (
            torch.zeros(3, 2),
            {"cell": torch.eye(2)},
            "cell must have shape (3, 3), beside positions (N, 3), but has (2, 2) beside (3, 2)",
        ),
        (torch.zeros(3, 3), {"cell": [[1.0] * 3] * 3}, "cell must be a tensor (3, 3), but is a list"),
        (
            torch.zeros(3, 3),
            {"cell": torch.tensor([1, 2, math.nan]).diag()},
            "cell must be finite, but is [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, nan]]",
        ),
        (
            torch.zeros(3, 3),
            {"cell": torch.tensor([1, 2, math.inf]).diag()},
            "cell must be finite, but is [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, inf]]",
        ),
        (
            torch.zeros(3, 3),
            {"cell": torch.tensor([[1.0, 2, 3], [2, 4, 6], [0, 0, 1]])},
            "cell must have independent rows, but is [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 0.0, 1.0]]",
        ),
    ],
)
def test_refuses(positions: Tensor, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^within_radius: ") as error:
        within_radius(positions, **{"radius": 1.0, **options})  # type: ignore[arg-type]
    assert str(error.value) == f"within_radius: {sentence}"
