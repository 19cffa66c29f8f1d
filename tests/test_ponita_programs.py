"""Models and graphs in compiled and exported programs, and written to files."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from test_ponita import close, cloud, ponita
from torch import Tensor, nn

from equiconv import BasisNetwork, Graph, pair_message
from equiconv.nn import Ponita

KINDS: dict[str, dict[str, Any]] = {
    "bundle": {"num_ori": 4},
    "recomputed": {"num_ori": 4, "recompute": True, "radius": 9.0},
    "distances": {"num_ori": 0},
}


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_for_other_sizes(kind: str, dynamic: bool | None) -> None:
    model = Ponita(2, 8, 1, 2, dim=3, **KINDS[kind]).double()
    given = {
        points: (torch.randn(points, 3).double(), Graph.complete([points]), torch.randn(points, 2).double())
        for points in (6, 9, 11)
    }
    model(given[6][0], given[6][1], x=given[6][2])  # calibrates
    model.eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for pos, graph, x in given.values():
        ours, expected = compiled(pos, graph, x=x)[0], model(pos, graph, x=x)[0]
        close(ours, expected)


def test_compiles() -> None:
    model, given = ponita(), cloud()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(**given), model(**given), strict=True):
        close(ours, expected)


def test_survives_a_state_dict_and_a_copy() -> None:
    model, given = ponita(), cloud()
    model.train()(**given)
    other = copy.deepcopy(model)
    for ours, expected in zip(other(**given), model(**given), strict=True):
        assert torch.equal(ours, expected)


class Message(nn.Module):
    def forward(self, x: Tensor, basis: Tensor, weight: Tensor, graph: Graph) -> Tensor:
        return pair_message(x, basis, weight, graph)


class Recomputed(nn.Module):
    def forward(self, x: Tensor, basis: BasisNetwork, weight: Tensor, graph: Graph) -> Tensor:
        return pair_message(x, basis, weight, graph)


NETWORK = BasisNetwork(*(torch.randn(shape) for shape in ((9, 2, 4), (5, 4), (5,), (6, 5), (6,))))


@pytest.mark.parametrize(("module", "basis"), [(Message(), torch.randn(9, 2, 6)), (Recomputed(), NETWORK)])
@pytest.mark.parametrize("undirected", [False, True])
def test_an_exported_program_survives_a_file(module: nn.Module, basis: Any, undirected: bool) -> None:
    graph = Graph.complete([3], undirected=undirected)
    given = torch.randn(3, 2, 4), basis, torch.randn(6, 4), graph
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, given), file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(*given), module(*given))


@pytest.mark.parametrize("undirected", [False, True])
def test_a_graph_survives_a_file(undirected: bool) -> None:
    graph = Graph.complete([3, 2], undirected=undirected)
    file = io.BytesIO()
    torch.save(graph, file)
    survivors = [pickle.loads(pickle.dumps(graph))]
    for weights_only in (False, True):
        file.seek(0)
        survivors.append(torch.load(file, weights_only=weights_only))
    for other in survivors:
        assert isinstance(other, Graph)
        assert torch.equal(other.senders, graph.senders)
        assert (other.one_way is None) == (not undirected)
        for ours, theirs in ((other.by_receiver, graph.by_receiver), (other.by_sender, graph.by_sender)):
            assert all(map(torch.equal, ours, theirs))
