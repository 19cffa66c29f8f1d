"""Pairs of points that are near each other, found by the library ``vesin``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .graph import Graph
from .ops.check import check_floating, require

__all__ = ["within_radius"]


def within_radius(
    positions: Tensor,
    radius: float,
    *,
    cell: Tensor | None = None,
    sizes: Tensor | list[int] | None = None,
    undirected: bool = False,
) -> tuple[Graph, Tensor]:
    """Every two points nearer to each other than `radius`, both ways, and how far around the cell they meet.

    Args:
        positions: (N, n), n at most 3.
        radius: in the unit of the positions, finite.
        cell: (3, 3), the vectors of a periodic cell as rows, which span space; n must be 3. Absent: nothing
            is periodic. A point and its own image may be a pair.
        sizes: (clouds,), how many points each cloud has: the clouds follow one another and do not meet.
            Absent: one cloud. All have the one cell.
        undirected: whether pairs stand as :meth:`Graph.undirected` has them, each in one direction and then
            all in the other.

    Returns:
        The graph, whose pairs (undirected: of one direction) are sorted by receiver, then sender; and shifts,
        (E, n): a pair's sender is at ``positions[sender] + shift`` for its receiver. Shifts are
        differentiable in `cell`, and zero without.

    Raises:
        ImportError: vesin is not installed (``pip install vesin``).
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    vesin works on the CPU: positions that are elsewhere are copied there, and the graph back.
    """
    try:
        from vesin import NeighborList  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ModuleNotFoundError as error:
        raise ImportError("within_radius: neighbours are found by vesin; pip install vesin") from error
    check_floating(_OP, "positions", positions)
    require(
        positions.dim() == 2 and 1 <= positions.shape[1] <= 3,
        lambda: f"{_OP}: positions must be (N, 1), (N, 2) or (N, 3), but has shape {tuple(positions.shape)}",
    )
    require(0 < radius < math.inf, lambda: f"{_OP}: radius must be positive and finite, but is {radius}")
    points, space = positions.shape
    require(
        cell is None or isinstance(cell, Tensor),
        lambda: f"{_OP}: cell must be a tensor (3, 3), but is a {type(cell).__name__}",
    )
    require(
        cell is None or (tuple(cell.shape) == (3, 3) and space == 3),
        lambda: (
            f"{_OP}: cell must have shape (3, 3), beside positions (N, 3), but has "
            f"{tuple(cell.shape) if cell is not None else ()} beside {tuple(positions.shape)}"
        ),
    )
    clouds = torch.as_tensor([points] if sizes is None else sizes, device="cpu").tolist()
    require(
        sum(clouds) == points and min(clouds, default=0) >= 0,
        lambda: f"{_OP}: sizes must add up to the {points} points of positions, but is {clouds}",
    )
    finite = bool(positions.isfinite().all())
    require(finite, lambda: f"{_OP}: positions must be finite, but row {_first_bad(positions)} is not")

    box = torch.zeros(3, 3, dtype=torch.float64) if cell is None else cell.detach().to("cpu", torch.float64)
    # vesin divides by the cell's volume, in whole numbers, and would end the process.
    finite = bool(box.isfinite().all())
    require(finite, lambda: f"{_OP}: cell must be finite, but is {box.tolist()}")
    spans = cell is None or int(torch.linalg.matrix_rank(box)) == 3
    require(spans, lambda: f"{_OP}: cell must have independent rows, but is {box.tolist()}")

    flat = positions.detach().to("cpu", torch.float64)
    flat = torch.nn.functional.pad(flat, (0, 3 - space))
    neighbours = NeighborList(cutoff=float(radius), full_list=not undirected, sorted=True)
    receivers, senders, images = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)], []
    first = 0
    for size in clouds:
        cloud = flat[first : first + size].numpy()
        if size:
            i, j, s = neighbours.compute(cloud, box.numpy(), periodic=cell is not None, quantities="ijS")
            receivers.append(torch.from_numpy(i.astype("int64")) + first)
            senders.append(torch.from_numpy(j.astype("int64")) + first)
            images.append(torch.from_numpy(s.astype("float64")))
        first += size
    receiver, sender = torch.cat(receivers), torch.cat(senders)
    image = torch.cat(images) if images else torch.zeros(0, 3, dtype=torch.float64)
    order = torch.argsort(receiver * points + sender, stable=True)
    make = Graph.undirected if undirected else Graph.from_pairs
    graph = make(sender[order], receiver[order], points).to(positions.device)
    image = image[order].to(positions)
    if undirected:
        image = torch.cat((image, -image))
    shifts = image[:, :space] if cell is None else image @ cell.to(positions)
    return graph, shifts


_OP = "within_radius"


def _first_bad(positions: Tensor) -> int:
    return int((~positions.isfinite()).any(-1).nonzero()[0])
