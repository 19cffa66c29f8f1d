"""Grids of orientations, the cut-off, polynomial features, lifting."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from equiconv import geometry

SOLIDS = {"tetrahedron": (4, 12), "octahedron": (6, 24), "cube": (8, 24), "icosahedron": (12, 60)}
SOLIDS |= {"dodecahedron": (20, 60)}


def float64(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---- grids ----


@pytest.mark.parametrize("count", [1, 2, 5, 16, 20])
def test_grids_are_of_unit_vectors(count: int) -> None:
    for grid, dim in (
        (geometry.circle(count, dtype=torch.float64), 2),
        (geometry.fibonacci_sphere(count, dtype=torch.float64), 3),
        (geometry.repulsion_sphere(count, dtype=torch.float64), 3),
    ):
        assert grid.shape == (count, dim)
        torch.testing.assert_close(grid.norm(dim=1), torch.ones(count, dtype=torch.float64))


def least_angle(grid: Tensor) -> float:
    cosines = (grid @ grid.T).fill_diagonal_(-1)
    return math.degrees(math.acos(cosines.max().item()))


def test_repulsion_finds_the_best_grids_known() -> None:
    # The solids that solve Thomson's problem: neighbours are 90 and 63.43 degrees apart.
    for count, degrees in ((4, 109.471), (6, 90), (12, 63.435)):
        assert least_angle(geometry.repulsion_sphere(count)) == pytest.approx(degrees, abs=0.01)
    assert least_angle(geometry.repulsion_sphere(20)) > least_angle(geometry.fibonacci_sphere(20))
    assert torch.equal(geometry.repulsion_sphere(16), geometry.repulsion_sphere(16))


def opposites(grid: Tensor) -> Tensor | None:
    """By trying everything."""
    found = [[j for j, p in enumerate(grid) if (o + p).norm() < 1e-6] for o in grid]
    return torch.tensor(found).flatten() if all(len(js) == 1 for js in found) else None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_antipodes(dtype: torch.dtype) -> None:
    grids = [geometry.circle(count, dtype=dtype) for count in (1, 2, 7, 8, 64)]
    grids += [geometry.regular_solid(name, dtype=dtype) for name in SOLIDS]
    grids += [geometry.repulsion_sphere(count, dtype=dtype) for count in (7, 16)]
    grids += [geometry.repulsion_sphere(count, antipodal=True, dtype=dtype) for count in (2, 8, 16)]
    antipodal = 0
    for grid in grids:
        ours, expected = geometry.antipodes(grid), opposites(grid)
        assert (ours is None) == (expected is None)
        if ours is not None:
            antipodal += 1
            assert torch.equal(ours, expected)
    assert antipodal == 10
    assert geometry.antipodes(torch.zeros(0, 3)) is None
    assert geometry.antipodes(torch.zeros(4, 3, device="meta")) is None
    assert geometry.antipodes(torch.tensor([[1.0, 0], [1, 0], [-1, 0]])) is None  # one of two, whichever


def test_antipodal_repulsion() -> None:
    grid = geometry.repulsion_sphere(16, antipodal=True)
    assert torch.equal(grid[8:], -grid[:8])
    for count, degrees in ((6, 90), (12, 63.435)):  # grids that are antipodal anyway
        best = geometry.repulsion_sphere(count, antipodal=True)
        assert least_angle(best) == pytest.approx(degrees, abs=0.01)
    assert least_angle(grid) > 46  # of 50.2, without opposites
    with pytest.raises(ValueError, match=r"count must be even where antipodal is True, but is 7$"):
        geometry.repulsion_sphere(7, antipodal=True)


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_and_their_rotations(name: str) -> None:
    count, order = SOLIDS[name]
    grid = geometry.regular_solid(name, dtype=torch.float64)
    group = geometry.rotation_group(name, dtype=torch.float64)
    assert grid.shape == (count, 3)
    assert group.shape == (order, 3, 3)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(group[0], eye)
    torch.testing.assert_close(group @ group.mT, eye.expand_as(group))
    torch.testing.assert_close(torch.linalg.det(group), torch.ones(order, dtype=torch.float64))
    for rotation in group:
        assert permutation(grid, rotation).unique().numel() == count
    products = (group[:, None] @ group[None]).flatten(0, 1)
    distances = (products.flatten(1)[:, None] - group.flatten(1)).abs().amax(-1)
    assert distances.min(1).values.max() < 1e-9  # closed
    assert torch.pdist(group.flatten(1)).min() > 0.1  # distinct
    antipodal = bool(torch.cdist(grid, -grid).min(1).values.max() < 1e-9)
    assert antipodal == (name != "tetrahedron")


def permutation(grid: Tensor, rotation: Tensor) -> Tensor:
    """Where the rotation takes each orientation; fails if not onto the grid."""
    distance, place = torch.cdist(grid @ rotation.T, grid).min(1)
    assert distance.max() < 1e-6
    return place


@pytest.mark.parametrize("dim", [2, 3])
def test_random_rotations(dim: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rotations = geometry.random_rotations(4000, dim, generator=generator, dtype=torch.float64)
    eye = torch.eye(dim, dtype=torch.float64)
    torch.testing.assert_close(rotations @ rotations.mT, eye.expand_as(rotations))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(4000, dtype=torch.float64))
    assert rotations.mean(0).abs().max() < 0.05  # uniform: no preferred direction
    assert (rotations.square().mean(0) - 1 / dim).abs().max() < 0.03


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: geometry.circle(0), "circle: count must be at least 1, but is 0"),
        (lambda: geometry.fibonacci_sphere(-2), "fibonacci_sphere: count must be at least 1, but is -2"),
        (lambda: geometry.repulsion_sphere(0), "repulsion_sphere: count must be at least 1, but is 0"),
        (
            lambda: geometry.regular_solid("ball"),
            "regular_solid: name must be tetrahedron, octahedron, cube, icosahedron or dodecahedron, "
            "but is ball",
        ),
        (
            lambda: geometry.rotation_group("ball"),
            "rotation_group: name must be tetrahedron, octahedron, cube, icosahedron or dodecahedron, "
            "but is ball",
        ),
        (lambda: geometry.random_rotations(3, 4), "random_rotations: dim must be 2 or 3, but is 4"),
        (
            lambda: geometry.polynomial_cutoff(torch.ones(1), 0.0),
            "polynomial_cutoff: radius must be positive, but is 0.0",
        ),
        (
            lambda: geometry.polynomial_cutoff(torch.ones(1), 1.0, power=0),
            "polynomial_cutoff: power must be at least 1, but is 0",
        ),
        (
            lambda: geometry.polynomial_features(torch.ones(1, 2), 0),
            "polynomial_features: degree must be at least 1, but is 0",
        ),
    ],
)
def test_refuses(call: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+: ") as error:
        call()  # type: ignore[operator]
    assert str(error.value) == sentence


# ---- the cut-off ----


def test_cutoff_is_smooth_at_both_ends() -> None:
    at = torch.tensor([0.0, 1.0, 2.0, 2.5, 1e30], dtype=torch.float64, requires_grad=True)
    window = geometry.polynomial_cutoff(at, 2.0)
    torch.testing.assert_close(window, torch.tensor([1, window[1].item(), 0, 0, 0], dtype=torch.float64))
    x, p = 0.5, 6
    expected = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    assert window[1].item() == pytest.approx(expected)
    (first,) = torch.autograd.grad(window.sum(), at, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), at)
    for derivative in (first, second):
        ends = derivative[[0, 2, 3, 4]].detach()
        torch.testing.assert_close(ends, torch.zeros_like(ends), rtol=0, atol=1e-12)
    inside = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda d: geometry.polynomial_cutoff(d, 1.5), inside)


# ---- polynomial features ----


@pytest.mark.parametrize(("attributes", "degree"), [(1, 3), (2, 3), (3, 3), (2, 1), (4, 2)])
def test_distinct_monomials_stand_for_the_repeated_ones(attributes: int, degree: int) -> None:
    a = float64(5, attributes)
    distinct = geometry.polynomial_features(a, degree)
    assert distinct.shape[1] == math.comb(attributes + degree, degree) - 1
    # The published features: each degree's columns times every attribute, the last one fastest.
    repeated = [a]
    for _ in range(degree - 1):
        repeated.append((repeated[-1][:, :, None] * a[:, None]).flatten(1))
    columns = torch.cat(repeated, 1)
    weight = float64(7, columns.shape[1])
    folded = geometry.fold_repeats(weight, attributes, degree)
    torch.testing.assert_close(distinct @ folded.T, columns @ weight.T)
    assert len(geometry.ordered_monomials(attributes, degree)) == columns.shape[1]


def test_counts_of_the_paper() -> None:
    assert len(geometry.monomials(2, 3)) == 9
    assert len(geometry.ordered_monomials(2, 3)) == 14
    assert len(geometry.monomials(3, 3)) == 19
    assert len(geometry.ordered_monomials(3, 3)) == 39


# ---- lifting ----


def test_vectors_survive_lifting() -> None:
    """On a solid's grid (1/O) Σ o oᵀ is a third of the identity."""
    grid = geometry.regular_solid("icosahedron", dtype=torch.float64)
    scalars, vectors = float64(4, 2), float64(4, 3, 3)
    lifted = geometry.lift(scalars, vectors, grid)
    assert lifted.shape == (4, 12, 5)
    torch.testing.assert_close(lifted[:, 7, :2], scalars)
    torch.testing.assert_close(geometry.project(lifted[..., 2:], grid), vectors / 3)
