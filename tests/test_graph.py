from __future__ import annotations

from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from equiconv import Graph
from equiconv.graph import Csr


def check(graph: Graph) -> None:
    """What is grouped are the pairs as they were given."""
    for csr, own, other in (
        (graph.by_receiver, graph.receivers, graph.senders),
        (graph.by_sender, graph.senders, graph.receivers),
    ):
        rows = csr.rows.long()
        assert torch.equal(rows.sort().values, torch.arange(graph.num_pairs))
        assert torch.equal(csr.neighbours, other[rows].to(csr.neighbours.dtype))
        groups = csr.offsets.shape[0] - 1
        assert torch.equal(own[rows], torch.arange(groups).repeat_interleave(csr.offsets.long().diff()))
        key = torch.stack([own[rows], other[rows], rows], -1).tolist()
        assert key == sorted(key)  # by the point on the other side, then as given
        assert {t.dtype for t in csr} == {torch.int32}


def same(a: Graph, b: Graph) -> None:
    for left, right in zip(tree_leaves(a), tree_leaves(b), strict=True):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)


@hypothesis.given(
    senders=st.integers(1, 9), receivers=st.integers(1, 9), pairs=st.integers(0, 40), seed=st.integers(0, 999)
)
def test_any_pairs(senders: int, receivers: int, pairs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    s = torch.randint(senders, (pairs,), generator=generator)
    r = torch.randint(receivers, (pairs,), generator=generator)
    graph = Graph.from_pairs(s, r, num_senders=senders, num_receivers=receivers)
    check(graph)
    assert (graph.num_pairs, graph.num_senders, graph.num_receivers) == (pairs, senders, receivers)
    assert torch.equal(graph.senders, s)
    check(graph.transposed())
    same(graph.transposed().transposed(), graph)
    by_csr = Graph.from_csr(graph.by_receiver.offsets, graph.by_receiver.neighbours, senders)
    check(by_csr)
    assert torch.equal(by_csr.by_receiver.neighbours, graph.by_receiver.neighbours)


INTEGERS = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)


@pytest.mark.parametrize("kind", INTEGERS)
def test_any_integer_type(kind: torch.dtype) -> None:
    s, r, offsets = torch.tensor([3, 0, 3]), torch.tensor([1, 1, 0]), torch.tensor([0, 1, 3])
    same(Graph.from_pairs(s.to(kind), r.to(kind), 300), Graph.from_pairs(s, r, 300))
    same(Graph.from_csr(offsets.to(kind), s.to(kind), 300), Graph.from_csr(offsets, s, 300))
    same(Graph.complete(offsets.to(kind)), Graph.complete(offsets))


def test_edge_index_has_a_direction() -> None:
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 2]])
    forward = Graph.from_edge_index(edge_index, 3, flow="source_to_target")
    assert forward.senders.tolist() == [0, 1, 2]
    assert forward.receivers.tolist() == [1, 2, 2]
    same(Graph.from_edge_index(edge_index, 3, flow="target_to_source"), forward.transposed())


@pytest.mark.parametrize("self_loops", [True, False])
def test_complete(self_loops: bool) -> None:
    graph = Graph.complete([2, 0, 1, 3], self_loops=self_loops)
    check(graph)
    cloud = [0, 0, 2, 3, 3, 3]
    expected = [(s, r) for r in range(6) for s in range(6) if cloud[s] == cloud[r] and (self_loops or s != r)]
    assert list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)) == expected
    assert Graph.complete([]).num_pairs == 0
    same(Graph.complete(torch.tensor([2, 0, 1, 3], dtype=torch.uint8), self_loops=self_loops), graph)


def check_undirected(graph: Graph) -> None:
    check(graph)
    rows, reversals = graph.num_rows, graph.num_pairs - graph.num_rows
    assert torch.equal(graph.senders[rows:], graph.receivers[:reversals])
    assert torch.equal(graph.receivers[rows:], graph.senders[:reversals])
    assert torch.equal(graph.senders[reversals:rows], graph.receivers[reversals:rows])  # self-loops
    one_way = graph.one_way
    assert one_way is not None
    whole = Graph.from_pairs(graph.senders[:rows], graph.receivers[:rows], graph.num_receivers)
    for ours, expected in zip(one_way, whole.by_receiver, strict=True):
        assert torch.equal(ours, expected)


@hypothesis.given(
    points=st.integers(1, 9), pairs=st.integers(0, 30), loops=st.booleans(), seed=st.integers(0, 999)
)
def test_undirected_pairs(points: int, pairs: int, loops: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randint(points, (2, pairs), generator=generator)
    graph = Graph.undirected(one.int(), other.int(), points, self_loops=loops)
    assert (graph.num_pairs, graph.num_rows) == (2 * pairs + loops * points, pairs + loops * points)
    assert torch.equal(graph.senders[:pairs], one)
    assert torch.equal(graph.receivers[:pairs], other)
    check_undirected(graph)
    check_undirected(graph.transposed())
    same(graph.transposed().transposed(), graph)
    assert graph.to("meta").num_rows == graph.num_rows


@pytest.mark.parametrize("self_loops", [True, False])
def test_complete_and_undirected(self_loops: bool) -> None:
    sizes = [2, 0, 1, 3]
    graph = Graph.complete(sizes, self_loops=self_loops, undirected=True)
    check_undirected(graph)
    directed = Graph.complete(sizes, self_loops=self_loops)
    assert directed.num_rows == directed.num_pairs == graph.num_pairs == (14 if self_loops else 8)
    assert graph.num_rows == (10 if self_loops else 4)
    for ours, expected in zip(graph.by_receiver[:2], directed.by_receiver[:2], strict=True):
        assert torch.equal(ours, expected)
    assert Graph.complete([], undirected=True).num_rows == 0


def test_batch_is_the_graph_of_all_pairs() -> None:
    graphs = [
        Graph.from_pairs(torch.tensor([2, 0, 0]), torch.tensor([1, 1, 0]), num_senders=4, num_receivers=2),
        Graph.complete([3]),
        Graph.complete([]),
    ]
    batch = Graph.batch(graphs)
    check(batch)
    assert (batch.num_senders, batch.num_receivers) == (7, 5)
    assert batch.senders.tolist() == [2, 0, 0, *(4 + i for i in [0, 1, 2] * 3)]
    assert Graph.batch([Graph.complete([3], undirected=True)]).num_rows == 9
    same(batch, Graph.from_pairs(batch.senders, batch.receivers, num_senders=7, num_receivers=5))


def test_is_a_pytree() -> None:
    graph = Graph.complete([2, 3])
    leaves, spec = tree_flatten(graph)
    assert all(isinstance(leaf, Tensor) for leaf in leaves)
    same(tree_unflatten(leaves, spec), graph)
    assert isinstance(graph.to("meta").by_sender, Csr)
    assert repr(graph) == "Graph(13 pairs, 5 senders, 5 receivers, cpu)"


def indices(*values: float, dtype: torch.dtype = torch.long) -> Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Graph.from_pairs(indices(0, 1, 5, 7), indices(0, 1, 2, 0), 5),
            "senders must be 0 to 4, but senders[2] is 5",
        ),
        (
            lambda: Graph.from_pairs(indices(0, 1), indices(0, -1), 5),
            "receivers must be 0 to 4, but receivers[1] is -1",
        ),
        (
            lambda: Graph.from_pairs(indices(200, dtype=torch.uint8), indices(0), 150),
            "senders must be 0 to 149, but senders[0] is 200",
        ),
        (
            lambda: Graph.from_pairs(indices(0), indices(0), num_senders=1, num_receivers=0),
            "receivers must be empty where there are no receivers, but receivers[0] is 0",
        ),
        (
            lambda: Graph.from_pairs(indices(0, dtype=torch.float32), indices(0), 5),
            "senders must be of an integer type, but is float32",
        ),
        (
            lambda: Graph.from_pairs(indices(0), indices(0, dtype=torch.bool), 5),
            "receivers must be of an integer type, but is bool",
        ),
        (
            lambda: Graph.from_pairs(indices(0)[None], indices(0), 5),
            "senders must have one axis, but has shape (1, 1)",
        ),
        (
            lambda: Graph.from_pairs(indices(0), indices(0, 1), 5),
            "senders and receivers must be as many, but are 1 and 2",
        ),
        (
            lambda: Graph.from_pairs(indices(0), indices(0)),
            "give num_points, or both num_senders and num_receivers, and nothing else",
        ),
        (
            lambda: Graph.from_pairs(indices(0), indices(0), 2, num_senders=2),
            "give num_points, or both num_senders and num_receivers, and nothing else",
        ),
        (
            lambda: Graph.from_pairs(indices(), indices(), 2**31),
            "num_points must be 0 to 2147483647, but is 2147483648",
        ),
        (lambda: Graph.from_pairs(indices(), indices(), -1), "num_points must be 0 to 2147483647, but is -1"),
        (
            lambda: Graph.from_csr(indices(0, 3, 2, 4), indices(0, 0, 0, 0)),
            "offsets must not fall, but offsets[2] is 2, less than offsets[1], 3",
        ),
        (
            lambda: Graph.from_csr(indices(1, 4), indices(0, 0, 0, 0)),
            "offsets must begin with 0, but begins with 1",
        ),
        (
            lambda: Graph.from_csr(indices(0, 3), indices(0, 0)),
            "offsets must end with the number of senders' entries, 2, but ends with 3",
        ),
        (
            lambda: Graph.from_csr(indices(), indices()),
            "offsets must have an entry more than there are receivers, but is empty",
        ),
        (
            lambda: Graph.from_csr(indices(0, 1), indices(1)),
            "senders must be 0 to 0, but senders[0] is 1",
        ),
        (
            lambda: Graph.from_edge_index(indices(0, 1), 2, flow="source_to_target"),
            "edge_index must be (2, E), but has shape (2,)",
        ),
        (
            lambda: Graph.from_edge_index(indices(0, 1)[:, None], 2, flow="up"),
            "flow must be source_to_target or target_to_source, but is up",
        ),
        (
            lambda: Graph.undirected(indices(0, 1, 5), indices(0, 1, 2), 5),
            "senders must be 0 to 4, but senders[2] is 5",
        ),
        (
            lambda: Graph.undirected(indices(0), indices(0, 1), 5),
            "senders and receivers must be as many, but are 1 and 2",
        ),
        (
            lambda: Graph.from_pairs(indices(0), torch.tensor([2**63 + 5], dtype=torch.uint64), 2),
            "receivers must be less than 2**63, but receivers[0] is 9223372036854775813",
        ),
        (
            lambda: Graph.from_pairs(indices(0), indices(5, dtype=torch.uint16), 2),
            "receivers must be 0 to 1, but receivers[0] is 5",
        ),
        (lambda: Graph.complete([2, -1]), "sizes must not be negative, but sizes[1] is -1"),
        (lambda: Graph.batch([]), "graphs must hold at least one graph, but is empty"),
        (
            lambda: Graph.batch([Graph.complete([1]), Graph.complete([1]).to("meta")]),
            "graphs must be on the device of graphs[0], cpu, but graphs[1] is on meta",
        ),
    ],
)
def test_refuses(make: Callable[[], Graph], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^Graph: ") as error:
        make()
    assert str(error.value) == f"Graph: {sentence}"
