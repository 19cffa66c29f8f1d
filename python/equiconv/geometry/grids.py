"""Grids of orientations on the circle, the sphere and the rotation group; all computed in float64."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from ..ops.check import one_of, require

GOLDEN = (1 + math.sqrt(5)) / 2


def circle(count: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, 2): equal steps around the unit circle, from (1, 0). Antipodal where count is even.

    Raises:
        ValueError: count is not positive.
    """
    _check_count("circle", count)
    half = count // 2 if count % 2 == 0 else count
    angle = torch.arange(half, dtype=torch.float64) * (2 * math.pi / count)
    points = torch.stack((angle.cos(), angle.sin()), -1)
    return (points if half == count else _with_opposites(points)).to(dtype)


def fibonacci_sphere(count: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, 3): a spiral of golden angles down the unit sphere, near-uniform for any count.

    Point i is at height 1 - (2 i + 1) / count and azimuth 2π i · golden ratio.

    Raises:
        ValueError: count is not positive.
    """
    _check_count("fibonacci_sphere", count)
    i = torch.arange(count, dtype=torch.float64)
    azimuth = (math.tau * GOLDEN * i) % math.tau
    z = 1 - (2 * i + 1) / count
    r = (1 - z * z).sqrt()
    return torch.stack((azimuth.cos() * r, azimuth.sin() * r, z), -1).to(dtype)


def repulsion_sphere(
    count: int, *, antipodal: bool = False, steps: int = 500, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(count, 3): points of the unit sphere after repelling one another, as charges do.

    A descent of Σ 1/|oᵢ - oⱼ|² from :func:`fibonacci_sphere`, so the same grid on every call. antipodal: of
    its upper half and their opposites, which move as one, and are the second half of the points.

    Raises:
        ValueError: count is not positive, or odd where the points are to be antipodal.
    """
    _check_count("repulsion_sphere", count)
    require(
        not antipodal or count % 2 == 0,
        lambda: f"repulsion_sphere: count must be even where antipodal is True, but is {count}",
    )
    points = fibonacci_sphere(count, dtype=torch.float64)
    if count == 1:
        return points.to(dtype)
    if antipodal:
        points = _with_opposites(points[: count // 2])
    spacing = math.sqrt(4 * math.pi / count)
    for step in range(steps):
        difference = points[:, None] - points
        squared = difference.square().sum(-1)
        squared.fill_diagonal_(math.inf)
        force = (difference / squared.square()[..., None]).sum(1)
        force -= (force * points).sum(1, keepdim=True) * points
        # The longest step is a tenth of the distance between neighbours at first, and shrinks to nothing.
        longest = force.norm(dim=1).max().clamp_min(spacing**-3)
        points = points + force * (0.1 * spacing * (1 - step / steps) / longest)
        points = points / points.norm(dim=1, keepdim=True)
        if antipodal:  # to the last bit
            points = _with_opposites(points[: count // 2])
    return points.to(dtype)


def _with_opposites(points: Tensor) -> Tensor:
    return torch.cat((points, -points))


def antipodes(grid: Tensor) -> Tensor | None:
    """(O,) of int64: of each orientation o of a grid (O, n) the number of -o; None where one has none.

    Up to rounding in the grid's dtype. It may then stand beside a basis of :func:`equiconv.pair_message`. It
    waits for a GPU.
    """
    if grid.is_meta or not len(grid):
        return None
    distance, opposite = (grid[:, None] + grid).norm(dim=-1).min(1)
    there = bool((distance <= 8 * torch.finfo(grid.dtype).eps).all())
    back = torch.arange(len(grid), device=grid.device)
    return opposite if there and torch.equal(opposite[opposite], back) else None


def _cyclic(*values: float) -> list[tuple[float, float, float]]:
    """(0, ±a, ±b) and its cyclic permutations."""
    a, b = values
    return [
        point
        for s, t in itertools.product((1, -1), repeat=2)
        for point in ((0.0, s * a, t * b), (s * a, t * b, 0.0), (t * b, 0.0, s * a))
    ]


_CUBE = [(float(x), float(y), float(z)) for x, y, z in itertools.product((1, -1), repeat=3)]

SOLIDS = {
    "tetrahedron": [(x, y, z) for x, y, z in _CUBE if x * y * z > 0],
    "octahedron": [(s * x, s * y, s * z) for s in (1.0, -1.0) for x, y, z in torch.eye(3).tolist()],
    "cube": _CUBE,
    "icosahedron": _cyclic(1.0, GOLDEN),
    "dodecahedron": _CUBE + _cyclic(1 / GOLDEN, GOLDEN),
}


def regular_solid(name: str, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, 3): the vertices of a regular solid on the unit sphere.

    tetrahedron (4 vertices), octahedron (6), cube (8), icosahedron (12) or dodecahedron (20). Turned by its
    :func:`rotation_group` the grid is the same set of points, so that this group is an exact symmetry of a
    network on it. All but the tetrahedron are antipodal.

    Raises:
        ValueError: there is no solid of this name.
    """
    require(name in SOLIDS, lambda: f"regular_solid: name must be {one_of([*SOLIDS])}, but is {name}")
    points = torch.tensor(SOLIDS[name], dtype=torch.float64)
    unit: Tensor = points / points.norm(dim=1, keepdim=True)
    return unit.to(dtype)


def rotation_group(name: str, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(order, 3, 3): the rotations that map a regular solid onto itself: 12, 24 or 60 of them.

    Also the uniform grids on SO(3) that are groups. The first rotation is the identity.

    Raises:
        ValueError: there is no solid of this name.
    """
    require(name in SOLIDS, lambda: f"rotation_group: name must be {one_of([*SOLIDS])}, but is {name}")
    points = regular_solid(name, dtype=torch.float64)
    cosines = points @ points.T
    edge = cosines[0].topk(2).values[1]  # the cosine of the angle between neighbours
    starts, ends = torch.nonzero((cosines - edge).abs() < 1e-9, as_tuple=True)
    # A rotation is known by where it takes one directed edge, and there is one for each.
    first = points[starts]
    second = points[ends] - edge * first
    second = second / second.norm(dim=1, keepdim=True)
    frames = torch.stack((first, second, torch.linalg.cross(first, second)), -1)
    rotations = frames @ frames[0].T
    return rotations.to(dtype)


def random_rotations(
    count: int, dim: int = 3, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(count, dim, dim): rotations of the plane or of space, drawn uniformly.

    Raises:
        ValueError: dim is neither 2 nor 3.
    """
    require(dim in (2, 3), lambda: f"random_rotations: dim must be 2 or 3, but is {dim}")
    if dim == 2:
        angle = torch.rand(count, generator=generator, dtype=torch.float64) * math.tau
        c, s = angle.cos(), angle.sin()
        return torch.stack((c, -s, s, c), -1).view(count, 2, 2).to(dtype)
    # A direction of the unit quaternion that is uniform on its sphere (Shoemake 1992).
    q = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2).to(dtype)


def _check_count(op: str, count: int) -> None:
    require(count >= 1, lambda: f"{op}: count must be at least 1, but is {count}")
