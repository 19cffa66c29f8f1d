"""pair_message with a basis of which one row serves both directions of a pair."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.pair_message import pair_message as on_emulator
from torch import Tensor

from equiconv import BasisNetwork, Graph, pair_message
from equiconv.graph import Csr
from equiconv.reference.pair_message import pair_message as reference


def involution(orientations: int) -> Tensor:
    """Any; of an odd number, one is its own opposite."""
    order = torch.randperm(orientations, generator=torch.Generator().manual_seed(1))
    opposite = torch.empty_like(order)
    opposite[order] = order.flip(0)
    return opposite


def options_of(sizes: Mapping[str, int], *, loops: bool) -> dict[str, Any]:
    """Of N points and B rows: pairs in no order, with repetitions and points paired with themselves."""
    generator = torch.Generator().manual_seed(0)
    points = sizes["N"]
    one, other = torch.randint(max(points, 1), (2, sizes["B"] - loops * points), generator=generator)
    return {
        "graph": Graph.undirected(one, other, points, self_loops=loops),
        "antipode": involution(sizes.get("O", 1)),
    }


def sample(
    name: str,
    points: int,
    rows: int,
    orientations: int,
    functions: int,
    channels: int,
    *,
    x: str = "NOC",
    basis: str = "BOK",
    loops: bool = False,
    **kind: Any,
) -> Sample:
    sizes = dict(zip("NBOKC", (points, rows, orientations, functions, channels), strict=True))
    rest = functools.partial(options_of, loops=loops)
    return Sample(name, {"x": x, "basis": basis, "weight": "KC"}, sizes, rest, **kind)


POINTS: Any = {"x": "NC", "basis": "BK"}
ALL: Any = {"basis": "BK"}
SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("bundle", 4, 5, 2, 3, 3),
    sample("loops", 3, 5, 3, 2, 3, loops=True),
    sample("cloud", 4, 7, 1, 3, 2, **POINTS),
    sample("shared", 3, 6, 3, 2, 3, **ALL),
    sample("strided", 3, 5, 2, 3, 2, loops=True, strided=True),
    sample("one-of-all", 1, 1, 1, 1, 1),
    sample("loops-only", 3, 3, 2, 2, 3, loops=True),
    sample("isolated", 9, 2, 2, 2, 2),
    sample("no-pairs", 3, 0, 2, 3, 2),
    sample("no-points", 0, 0, 2, 3, 2),
    sample("no-channels", 3, 4, 2, 3, 0),
    sample("no-orientations", 3, 4, 0, 2, 3),
    # Larger: values, bits, threads.
    sample("tiles", 20, 60, 4, 64, 64, loops=True),
    sample("odd", 30, 71, 3, 37, 29, loops=True),
    sample("wide", 12, 50, 2, 5, 150),
    sample("deep", 12, 50, 2, 200, 9),
    sample("many-orientations", 6, 20, 20, 12, 40),
    sample("cloud-large", 60, 350, 1, 33, 48, loops=True, **POINTS),
    sample("shared-large", 30, 100, 8, 16, 33, loops=True, **ALL),
    sample("many-pairs", 40, 2300, 1, 4, 8, loops=True),
    sample("strided-large", 20, 45, 6, 20, 35, loops=True, strided=True),
    sample("strided-deep", 20, 45, 6, 40, 35, loops=True, strided=True),
    sample("strided-shared", 20, 45, 6, 20, 35, strided=True, **ALL),
    sample("float32-weight", 20, 45, 4, 20, 40, float32=frozenset(["weight"])),
)

REFUSALS = (
    Refusal(
        "pair_message: basis must have a row for each undirected pair of graph, 5, but has 4",
        {"basis": lambda b: b[1:]},
    ),
    Refusal(
        "pair_message: basis must have a row for each undirected pair of graph, 5, but has 10",
        {"basis": lambda b: torch.cat((b, b))},
    ),
    Refusal("pair_message: x must have a row for each sender of graph, 4, but has 3", {"x": lambda x: x[1:]}),
    Refusal("pair_message: antipode must be int64, but is int32", options={"antipode": involution(2).int()}),
    Refusal(
        "pair_message: antipode must have shape (2,), one for each orientation of x, but has (3,)",
        options={"antipode": involution(3)},
    ),
    Refusal(
        "pair_message: antipode must be contiguous, but is not",
        options={"antipode": torch.tensor([1, 0, 0, 0])[::2]},
    ),
    Refusal(
        "pair_message: graph must be undirected where antipode is given, but is "
        "Graph(9 pairs, 3 senders, 3 receivers, cpu)",
        options={"graph": Graph.complete([3])},
    ),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    kind = draw(st.sampled_from([{}, POINTS, ALL]))
    points = draw(st.integers(1, 20))
    loops = draw(st.booleans())
    return sample(
        "random",
        points,
        draw(st.integers(0 if loops else 1, 50)) + loops * points,
        1 if kind is POINTS else draw(st.integers(1, 5)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 70)),
        loops=loops,
        strided=draw(st.booleans()),
        float32=frozenset(["weight"] if draw(st.booleans()) else []),
        **kind,
    )


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    graph = options["graph"]
    groups = (*graph.by_receiver, *graph.by_sender, *graph.one_way)
    args = (*tensors.values(), *groups, options["antipode"])
    grad_out = torch.randn_like(tensors["x"]).requires_grad_()
    yield torch.ops.equiconv.pair_message_antipodal.default, args
    yield torch.ops.equiconv.pair_message_antipodal_backward.default, (grad_out, *args, True, True, True)
    yield torch.ops.equiconv.pair_message_antipodal_backward.default, (grad_out, *args, False, True, False)


class TestContract(contract.Contract):
    op = Op(
        function=pair_message,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("x",), ("basis",), ("weight",)),
        grown=lambda sizes: {
            "N": sizes["N"] + 3,
            "B": sizes["B"] + 11,
            "K": sizes["K"] + 1,
            "C": sizes["C"] + 2,
        },
        weights=("weight",),
        exact=reference,
        of_squares=reference,
        dispatched=dispatched,
        on_emulator=on_emulator,
    )


# ---- what is special about one row for both directions -------------------------------------------


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


FEW_AND_MANY = pytest.mark.parametrize("functions", [20, 40])  # filters made for one direction, and for both


@FEW_AND_MANY
def test_the_order_of_pairs_changes_no_bit(functions: int) -> None:
    points = 30
    pairs = torch.combinations(torch.arange(points))[torch.randperm(435)[:200]]
    antipode, order = involution(4), torch.randperm(200)
    x, basis = torch.randn(points, 4, 40), torch.randn(200, 4, functions)
    weight = torch.randn(functions, 40)
    results = []
    for place in (torch.arange(200), order):
        graph = Graph.undirected(*pairs[place].unbind(1), points)
        leaves = [t.clone().requires_grad_() for t in (x, basis[place], weight)]
        y = pair_message(*leaves, graph, antipode)
        grad_x, grad_basis, grad_weight = torch.autograd.grad(y, leaves, contract.random_like(y))
        results.append([y, grad_x, grad_basis[place.argsort()], grad_weight])
    contract.assert_same_bits(*results)


@FEW_AND_MANY
def test_results_are_those_of_all_rows(functions: int) -> None:
    """To the last bit: only where a row lies, and when it is made, is different. Of the gradients that of x:
    the others are sums in another order."""
    points, orientations = 20, 6
    pairs = torch.combinations(torch.arange(points))[torch.randperm(190)[:70]]
    pairs[::2] = pairs[::2].flip(1)
    graph = Graph.undirected(*pairs.unbind(1), points, self_loops=True)
    antipode = involution(orientations)
    antipode[[0, int(antipode[0])]] = torch.tensor([0, int(antipode[0])])  # their own opposites
    x = torch.randn(points, orientations, 33, requires_grad=True)
    basis, weight = torch.randn(90, orientations, functions), torch.randn(functions, 33)
    everything = torch.cat((basis, basis[:70, antipode]))
    results = []
    for y in (pair_message(x, basis, weight, graph, antipode), pair_message(x, everything, weight, graph)):
        results.append([y, *torch.autograd.grad(y, x, contract.random_like(y))])
    contract.assert_same_bits(*results)


def test_clouds_are_as_if_alone() -> None:
    sizes, antipode, weight = [3, 1, 7, 0, 12, 2], involution(4), torch.randn(35, 20)
    whole = Graph.complete(sizes, undirected=True)
    x, basis = torch.randn(sum(sizes), 4, 20), torch.randn(whole.num_rows, 4, 35)
    together = pair_message(x, basis, weight, whole, antipode)
    cloud = torch.repeat_interleave(torch.tensor(sizes))
    for i, size in enumerate(sizes):
        mine = cloud[whole.senders[: whole.num_rows]] == i
        alone = Graph.complete([size], undirected=True)
        y = pair_message(x[cloud == i], basis[mine], weight, alone, antipode)
        contract.assert_same_bits([together[cloud == i]], [y])


def test_wide_indices() -> None:
    narrow = sample("", 12, 50, 4, 10, 20, loops=True)
    given = narrow.options
    graph = given["graph"]
    groups = [Csr(*(t.long() for t in csr)) for csr in (graph.by_receiver, graph.by_sender, graph.one_way)]
    wide = {**given, "graph": Graph(graph.senders, graph.receivers, *groups)}
    tensors = narrow.make(torch.float32, "cpu")
    results = []
    for options in (given, wide):
        y = pair_message(**tensors, **options)
        results.append([y, *torch.autograd.grad(y, tuple(tensors.values()), contract.random_like(y))])
    contract.assert_same_bits(*results)


@pytest.mark.parametrize("shared", [False, True])
def test_dense_weights(shared: bool) -> None:
    given = options_of({"N": 9, "B": 24, "O": 4}, loops=True)
    basis = double(24, 7) if shared else double(24, 4, 7)
    leaves = [t.requires_grad_() for t in (double(9, 4, 5), basis, double(7, 5, 3))]
    results = []
    for function in (pair_message, reference):
        y = function(*leaves, **given)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_networks_in_the_place_of_a_basis(shared: bool, window: bool) -> None:
    given = options_of({"N": 9, "B": 24, "O": 4}, loops=True)
    features = double(24, 3) if shared else double(24, 4, 3)
    parts = [features, double(6, 3), double(6), double(7, 6), double(7), double(24) if window else None]
    leaves = [t.requires_grad_() for t in (double(9, 4, 5), double(7, 5), *parts) if t is not None]
    x, weight = leaves[:2]
    network = BasisNetwork(*leaves[2:])
    results = []
    for basis in (network, network.basis()):
        y = pair_message(x, basis, weight, **given)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), leaves)
        results.append([y, *first, *second])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("antipode", "sentence"),
    [
        ([1, 2], "antipode must be 0 to 1, but antipode[1] is 2"),
        ([1, 1], "antipode must lead back to where it comes from, but leads from 0 to 1 to 1"),
    ],
)
@pytest.mark.parametrize("kind", ["separate", "dense", "network"])
def test_refuses_what_is_no_involution(antipode: list[int], sentence: str, kind: str) -> None:
    graph = Graph.undirected(torch.tensor([0, 1]), torch.tensor([1, 2]), 3)
    network = BasisNetwork(double(2, 2, 3), *map(double, (6, 6, 5, 5)))
    network = network._replace(first_weight=double(6, 3), second_weight=double(5, 6))
    basis: Any = network if kind == "network" else double(2, 2, 5)
    weight = double(5, 4, 3) if kind == "dense" else double(5, 4)
    with pytest.raises(ValueError, match=r"^pair_message: ") as error:
        pair_message(double(3, 2, 4), basis, weight, graph, torch.tensor(antipode))
    assert str(error.value) == f"pair_message: {sentence}"


@pytest.mark.parametrize("kind", ["dense", "network"])
def test_refuses_other_rows_where_rows_are_written_out(kind: str) -> None:
    graph = Graph.undirected(torch.tensor([0, 1]), torch.tensor([1, 2]), 3)
    dense = kind == "dense"
    basis: Any = double(4, 2, 5) if dense else BasisNetwork(double(4, 2, 3), *map(double, (6, 6, 5, 5)))
    weight = double(5, 4, 2) if dense else double(5, 4)
    with pytest.raises(ValueError, match=r"must have a row for each undirected pair of graph, 2, but has 4$"):
        pair_message(double(3, 2, 4), basis, weight, graph, involution(2))
    with pytest.raises(ValueError, match="antipode must have shape"):
        pair_message(double(3, 2, 4), basis, weight, graph, involution(3))
