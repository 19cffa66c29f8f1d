"""PONITA with one basis row for both directions of a pair: what it is without."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_ponita import SIZES, close, cloud, double, ponita
from torch import Tensor

from equiconv import Graph, geometry
from equiconv.nn import FiberBundleConv, Ponita

ONE_ROW: dict[str, dict[str, Any]] = {
    "solid": {"num_ori": 12, "grid": geometry.regular_solid("icosahedron", dtype=torch.float64)},
    "repulsion": {"num_ori": 8, "grid": geometry.repulsion_sphere(8, antipodal=True), "smooth": True},
    "circle": {"num_ori": 6, "dim": 2, "complete": True},
    "distances": {"num_ori": 0},
}


def outcome(model: Ponita, given: dict[str, Any]) -> list[Tensor]:
    """Outputs, forces, gradients of a loss of both, and the forces' by the positions."""
    pos = given["pos"].clone().requires_grad_()
    scalars, vectors = model(**{**given, "pos": pos})
    (force,) = torch.autograd.grad(scalars.sum(), pos, create_graph=True)
    loss = force.square().sum() + scalars.square().sum()
    if vectors is not None:
        loss = loss + vectors.square().sum()
    slopes = torch.autograd.grad(loss, [pos, *model.parameters()])
    return [scalars, *([] if vectors is None else [vectors]), force, *slopes]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ONE_ROW)
def test_one_row_for_both_directions_changes_nothing(kind: str, recompute: bool) -> None:
    options = ONE_ROW[kind]
    dim = options.get("dim", 3)
    vectors = 0 if kind == "distances" else 2
    model = Ponita(3, 8, 2, 3, vectors, basis_dim=9, radius=3.0, extra_dim=1, recompute=recompute, **options)
    model = model.double().eval()
    given = cloud(dim=dim) if vectors else {**cloud(scalars=3), "vec": None}
    graph = Graph.complete(SIZES, undirected=True)
    rows, reversals = graph.num_rows, graph.num_pairs - graph.num_rows
    shift, extra = double(rows, dim), double(rows, 1)
    shift[reversals:] = 0  # self-loops
    given |= {"graph": graph, "shifts": torch.cat((shift, -shift[:reversals]))}
    given |= {"extra": torch.cat((extra, extra[:reversals]))}
    if vectors:
        given["rotations"] = geometry.random_rotations(len(SIZES), dim, dtype=torch.float64)
    assert model.antipode is not None
    ours = outcome(model, given)
    # What the reversed pairs come with is not read.
    again = {**given, "shifts": given["shifts"].clone(), "extra": given["extra"].clone()}
    again["shifts"][rows:], again["extra"][rows:] = torch.nan, torch.nan
    assert torch.equal(model(**again)[0], ours[0])
    directed = Graph.from_pairs(graph.senders, graph.receivers, graph.num_receivers)
    for a, b in zip(ours, outcome(model, {**given, "graph": directed}), strict=True):
        close(a, b, tolerance=1e-11)


def test_grids_that_are_not_antipodal_see_all_pairs() -> None:
    model, given = ponita(num_ori=7), cloud()
    assert model.antipode is None
    undirected = {**given, "graph": Graph.complete(SIZES, undirected=True)}
    for ours, expected in zip(model(**undirected), model(**given), strict=True):
        close(ours, expected)


def test_antipodes_are_of_the_grid_that_is_there() -> None:
    """Another grid by a checkpoint or by hand; none of it is in a checkpoint."""
    antipodal = ponita(num_ori=8, grid=geometry.repulsion_sphere(8, antipodal=True))
    other = ponita(num_ori=8)
    assert "antipode" not in antipodal.state_dict()
    assert other.antipode is None
    other.load_state_dict(antipodal.state_dict())
    assert torch.equal(other.antipode, antipodal.antipode)
    other.ori_grid = geometry.repulsion_sphere(8, dtype=torch.float64)
    assert other.antipode is None
    copied = copy.deepcopy(antipodal).float().to("cpu")
    assert copied.antipode.dtype == torch.int64


def test_compiles_with_one_row_for_both_directions() -> None:
    model = ponita(num_ori=8, grid=geometry.repulsion_sphere(8, antipodal=True))
    given = {**cloud(), "graph": Graph.complete(SIZES, undirected=True)}
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(**given), model(**given), strict=True):
        close(ours, expected)


def test_filters_of_two_orientations_have_no_row_for_both_directions() -> None:
    conv, graph = FiberBundleConv(4, 4, 3, separable=False), Graph.complete([2], undirected=True)
    with pytest.raises(ValueError, match=r"^FiberBundleConv: antipode must be absent where sep"):
        conv(torch.zeros(2, 2, 4), torch.zeros(3, 2, 2, 3), None, graph, torch.tensor([1, 0]))
