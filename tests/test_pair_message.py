from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.pair_message import pair_message as on_emulator
from torch import Tensor

from equiconv import Graph, pair_message
from equiconv.graph import Csr
from equiconv.reference.pair_message import pair_message as reference


def random_graph(senders: int, receivers: int, pairs: int, *, seed: int = 0) -> Graph:
    """Pairs in no order: with self-loops and repetitions, and points left alone, as chance has it."""
    generator = torch.Generator().manual_seed(seed)
    return Graph.from_pairs(
        torch.randint(max(senders, 1), (pairs,), generator=generator),
        torch.randint(max(receivers, 1), (pairs,), generator=generator),
        num_senders=senders,
        num_receivers=receivers,
    )


def graph_of(sizes: Mapping[str, int]) -> dict[str, Any]:
    return {"graph": random_graph(sizes["S"], sizes["R"], sizes["E"])}


def sample(
    name: str,
    senders: int,
    receivers: int,
    pairs: int,
    orientations: int,
    functions: int,
    channels: int,
    *,
    x: str = "SOC",
    basis: str = "EOK",
    **kind: Any,
) -> Sample:
    sizes = dict(zip("SREOKC", (senders, receivers, pairs, orientations, functions, channels), strict=True))
    return Sample(name, {"x": x, "basis": basis, "weight": "KC"}, sizes, graph_of, **kind)


CLOUD: Any = {"x": "SC", "basis": "EK"}
SHARED: Any = {"basis": "EK"}
SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("bundle", 4, 3, 5, 2, 3, 3),
    sample("cloud", 4, 4, 7, 1, 3, 2, **CLOUD),
    sample("shared", 3, 3, 6, 2, 2, 3, **SHARED),
    sample("strided", 3, 4, 5, 2, 3, 2, strided=True),
    sample("one-of-all", 1, 1, 1, 1, 1, 1),
    sample("self-loop", 1, 1, 2, 1, 2, 3, **CLOUD),
    sample("isolated", 3, 9, 2, 2, 2, 2),
    sample("no-pairs", 3, 4, 0, 2, 3, 2),
    sample("no-points", 0, 0, 0, 2, 3, 2),
    sample("no-receivers", 3, 0, 0, 1, 3, 2, **CLOUD),
    sample("no-channels", 3, 3, 4, 2, 3, 0),
    sample("no-functions", 3, 3, 4, 2, 0, 3),
    sample("no-orientations", 3, 3, 4, 0, 2, 3),
    # Larger: values, bits, threads. Sizes that fill tiles and that do not, few groups and many.
    sample("tiles", 20, 20, 120, 4, 64, 64),
    sample("odd", 30, 25, 131, 3, 37, 29),
    sample("wide", 12, 7, 100, 2, 5, 150),
    sample("deep", 12, 7, 100, 2, 200, 9),
    sample("many-orientations", 6, 5, 40, 21, 12, 40),
    sample("cloud-large", 60, 50, 700, 1, 33, 48, **CLOUD),
    sample("shared-large", 20, 30, 200, 8, 16, 33, **SHARED),
    sample("odd-large", 9, 8, 40, 2, 70, 65),
    sample("odd-large-shared", 9, 8, 40, 3, 65, 96, **SHARED),
    sample("odd-large-float32-weight", 9, 8, 40, 2, 66, 80, float32=frozenset(["weight"])),
    sample("many-pairs", 12, 9, 170, 3, 66, 40),
    sample("many-pairs-cloud", 40, 2, 300, 1, 64, 33, **CLOUD),
    sample("many-pairs-float32-weight", 9, 8, 130, 2, 70, 20, strided=True, float32=frozenset(["weight"])),
    sample("one-receiver", 50, 1, 1000, 2, 8, 20),
    sample("one-sender", 1, 50, 400, 2, 8, 20),
    sample("many-receivers", 40, 3000, 500, 1, 4, 16),
    sample("strided-large", 20, 20, 90, 5, 20, 35, strided=True),
    sample("strided-shared", 20, 20, 90, 5, 20, 35, strided=True, **SHARED),
    sample("float32-weight", 20, 20, 90, 3, 20, 40, float32=frozenset(["weight"])),
)

REFUSALS = (
    Refusal("pair_message: x must be (S, O, C) or (S, C), but has shape (2,)", {"x": lambda x: x[0, :, 0]}),
    Refusal(
        "pair_message: x must be float32, float64, bfloat16 or float16, but is int64",
        {"x": lambda x: x.long()},
    ),
    Refusal("pair_message: x must have a row for each sender of graph, 4, but has 3", {"x": lambda x: x[1:]}),
    Refusal(
        "pair_message: basis must be (E, O, K) or (E, K), but has shape (5,)", {"basis": lambda b: b[:, 0, 0]}
    ),
    Refusal(
        "pair_message: basis must be (E, K) where x is (S, C), but has shape (5, 2, 3)",
        {"x": lambda x: x[:, 0]},
    ),
    Refusal(
        "pair_message: basis must have the dtype of x, float32, but has float64",
        {"basis": lambda b: b.double()},
    ),
    Refusal(
        "pair_message: basis must have the dtype of x, bfloat16, but has float32",
        {"x": lambda x: x.bfloat16()},
    ),
    Refusal(
        "pair_message: basis must have a row for each pair of graph, 5, but has 4", {"basis": lambda b: b[1:]}
    ),
    Refusal(
        "pair_message: basis must have the orientations of x, 2, but has 1", {"basis": lambda b: b[:, 1:]}
    ),
    Refusal(
        "pair_message: basis must be on the device of x, {device}, but is on meta",
        {"basis": lambda b: b.to("meta")},
    ),
    Refusal(
        "pair_message: weight must be (K, C) or (K, C, D), but has shape (3,)", {"weight": lambda w: w[0]}
    ),
    Refusal(
        "pair_message: weight must have the dtype of x, float32, but has float16",
        {"weight": lambda w: w.half()},
    ),
    Refusal(
        "pair_message: weight must have the functions of basis, 3, but has 2", {"weight": lambda w: w[1:]}
    ),
    Refusal(
        "pair_message: weight must have the channels of x, 3, but has 4",
        {"weight": lambda w: w[:, :1].expand(3, 4)},
    ),
    Refusal(
        "pair_message: x must have a row for each sender of graph, 5, but has 4",
        options={"graph": random_graph(5, 3, 5)},
    ),
    Refusal(
        "pair_message: basis must have a row for each pair of graph, 6, but has 5",
        options={"graph": random_graph(4, 3, 6)},
    ),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    kind = draw(st.sampled_from([{}, CLOUD, SHARED]))
    return sample(
        "random",
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 80)),
        1 if kind is CLOUD else draw(st.integers(1, 5)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 70)),
        strided=draw(st.booleans()),
        float32=frozenset(["weight"] if draw(st.booleans()) else []),
        **kind,
    )


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    graph = options["graph"]
    x = tensors["x"]
    args = (*tensors.values(), *graph.by_receiver, *graph.by_sender)
    grad_out = x.new_empty(graph.num_receivers, *x.shape[1:]).normal_().requires_grad_()
    yield torch.ops.equiconv.pair_message.default, args
    yield torch.ops.equiconv.pair_message_backward.default, (grad_out, *args, True, True, True)
    yield torch.ops.equiconv.pair_message_backward.default, (grad_out, *args, False, True, False)


class TestContract(contract.Contract):
    op = Op(
        function=pair_message,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("x",), ("basis",), ("weight",)),
        grown=lambda sizes: {
            "S": sizes["S"] + 3,
            "R": sizes["R"] + 7,
            "E": sizes["E"] + 11,
            "K": sizes["K"] + 1,
            "C": sizes["C"] + 2,
        },
        weights=("weight",),
        exact=reference,
        of_squares=reference,  # the op sums products of the arguments' entries
        dispatched=dispatched,
        capabilities=contract.ALL_CAPABILITIES,
        on_emulator=on_emulator,
    )


# ---- what is special about sums over pairs -----------------------------------------------------------------


def permuted(graph: Graph, order: Tensor) -> Graph:
    return Graph.from_pairs(
        graph.senders[order],
        graph.receivers[order],
        num_senders=graph.num_senders,
        num_receivers=graph.num_receivers,
    )


def simple_graph(points: int, degree: int) -> Graph:
    """No two pairs have the same sender and receiver."""
    senders = torch.stack([torch.randperm(points)[:degree] for _ in range(points)]).flatten()
    return Graph.from_pairs(senders, torch.arange(points).repeat_interleave(degree), points)


def test_the_order_of_pairs_changes_no_bit(device: str) -> None:
    graph = simple_graph(30, 7)
    shapes = (30, 3, 40), (210, 3, 20), (20, 40)
    x, b, w = (torch.randn(shape, device=device, requires_grad=True) for shape in shapes)
    grad_out = torch.randn_like(x)
    order = torch.randperm(graph.num_pairs)
    results = []
    for basis, pairs in ((b, graph), (b[order], permuted(graph, order))):
        y = pair_message(x, basis, w, pairs.to(device))
        results.append([y, *torch.autograd.grad(y, (x, b, w), grad_out)])
    contract.assert_same_bits(results[1], results[0])


def test_order_of_points_is_carried_along() -> None:
    graph = simple_graph(20, 5)
    x, b, w = torch.randn(20, 2, 9), torch.randn(100, 2, 6), torch.randn(6, 9)
    order = torch.randperm(20)
    place = order.argsort()  # where each point went
    moved = Graph.from_pairs(place[graph.senders], place[graph.receivers], 20)
    y = pair_message(x, b, w, graph)
    torch.testing.assert_close(pair_message(x[order], b, w, moved), y[order], rtol=1e-5, atol=1e-5)


def test_nan_stays_with_the_receivers_of_its_point() -> None:
    graph = simple_graph(25, 4)
    x, b, w = torch.randn(25, 2, 20), torch.randn(100, 2, 6), torch.randn(6, 20)
    clean = pair_message(x, b, w, graph)
    x[3] = float("nan")
    y = pair_message(x, b, w, graph)
    reached = torch.zeros(25, dtype=torch.bool)
    reached[graph.receivers[graph.senders == 3]] = True
    assert y[reached].isnan().all()
    contract.assert_same_bits([y[~reached]], [clean[~reached]])


def test_orientations_are_independent() -> None:
    """Each has the bits that it has alone."""
    graph = random_graph(9, 8, 40)
    x, b, w = torch.randn(9, 5, 21), torch.randn(40, 5, 17), torch.randn(17, 21)
    y = pair_message(x, b, w, graph)
    for o in range(5):
        alone = pair_message(x[:, o : o + 1], b[:, o : o + 1], w, graph)
        contract.assert_same_bits([alone], [y[:, o : o + 1]])
    contract.assert_same_bits([pair_message(x[:, 2], b[:, 2], w, graph)], [y[:, 2]])


def test_wide_indices() -> None:
    """int64 inside, as graphs of 2**31 pairs have them."""
    narrow = sample("", 12, 9, 50, 3, 10, 20)
    graph = narrow.options["graph"]
    wide = dataclasses.replace(
        graph,
        by_receiver=Csr(*(t.long() for t in graph.by_receiver)),
        by_sender=Csr(*(t.long() for t in graph.by_sender)),
    )
    tensors = narrow.make(torch.float32, "cpu")
    results = [
        contract.value_and_gradients(pair_message, s, tensors)
        for s in (narrow, dataclasses.replace(narrow, rest={"graph": wide}))
    ]
    contract.assert_same_bits(*results)


def test_more_than_2_to_the_31_products() -> None:
    """Pairs × orientations × channels; all pairs share one basis row in memory."""
    pairs, orientations, channels = 2**14, 257, 512
    graph = Graph.from_pairs(torch.zeros(pairs, dtype=torch.long), torch.arange(pairs) % 2, 2)
    x = torch.ones(2, orientations, channels, dtype=torch.bfloat16)
    basis = torch.ones(1, 1, dtype=torch.bfloat16).expand(pairs, 1)
    y = pair_message(x, basis, torch.full((1, channels), 0.5, dtype=torch.bfloat16), graph)
    assert (y == pairs / 4).all()


def test_offsets_beyond_2_to_the_31() -> None:
    """Rows so far apart in (mostly untouched) memory that their places need more than 32 bits."""
    shapes = {"x": (10, 2, 8), "basis": (10, 2, 5), "weight": (5, 8)}
    graph = random_graph(10, 3, 10)
    near = {name: torch.randn(shape).bfloat16().requires_grad_() for name, shape in shapes.items()}
    far = dict(near)
    for name in ("x", "basis"):
        room = torch.empty(9 * 2**28 + 64, dtype=torch.bfloat16)
        spread = room.as_strided(shapes[name], (2**28, shapes[name][2], 1))
        far[name] = spread.copy_(near[name].detach()).requires_grad_()
    results = []
    for tensors in (near, far):
        y = pair_message(**tensors, graph=graph)
        results.append([y, *torch.autograd.grad(y, tuple(tensors.values()), contract.random_like(y))])
    contract.assert_same_bits(results[1], results[0])


def test_two_million_pairs_in_16_orientations() -> None:
    """In less than 6 GB; the messages alone would take 8."""
    code = """
import resource, torch
from equiconv import Graph, pair_message
torch.set_num_threads(2)
points, degree, orientations, functions, channels = 125_000, 16, 16, 16, 64
receivers = torch.arange(points).repeat_interleave(degree)
senders = (receivers * 7919 + torch.arange(degree).repeat(points) * 104729) % points
graph = Graph.from_pairs(senders, receivers, points)
x = torch.ones(points, orientations, channels)
basis = torch.ones(points * degree, orientations, functions)
weight = torch.full((functions, channels), 1 / (functions * degree))
y = pair_message(x, basis, weight, graph)
assert y.min() == y.max() == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 6e9


def test_extra_memory_of_a_forward() -> None:
    """Beside the output: for each thread K × C and a row of it, however many pairs there are."""
    pairs, orientations, functions, channels = 20000, 16, 16, 32
    code = f"""
import resource, torch
from equiconv import Graph, pair_message
from equiconv.graph import Csr
torch.set_num_threads(2)
graph = Graph.from_pairs(torch.arange({pairs}) % 500, torch.arange({pairs}) * 7 % 500, 500)
x, basis = torch.randn(500, {orientations}, {channels}), torch.randn({pairs}, {orientations}, {functions})
weight = torch.randn({functions}, {channels})
pair_message(x[:, :1], basis[:, :1], weight, graph)  # threads, and their stacks
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
torch.randn(1); y = pair_message(x, basis, weight, graph)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - y.numel() * 4)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    extra = int(run.stdout)
    assert extra < 3e6  # a tensor of pairs × orientations × channels has 41 MB


def test_export_with_the_graph_as_an_argument() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, basis: Tensor, weight: Tensor, graph: Graph) -> Tensor:
            return pair_message(x, basis, weight, graph)

    def arguments(*sizes: int) -> tuple[Tensor, Tensor, Tensor, Graph]:
        senders, _, pairs = sizes
        tensors = torch.randn(senders, 2, 3), torch.randn(pairs, 2, 4), torch.randn(4, 3)
        return *tensors, random_graph(*sizes)

    program = torch.export.export(Model(), arguments(5, 6, 7))
    other = arguments(5, 6, 7)
    contract.assert_same_bits([program.module()(*other)], [pair_message(*other)])


def test_an_edge_index_is_no_graph() -> None:
    sentence = "graph must be a Graph, as Graph.from_edge_index makes of an edge_index, but is a Tensor$"
    for antipode in (None, torch.zeros(1, dtype=torch.int64)):
        with pytest.raises(ValueError, match=f"^pair_message: {sentence}"):
            pair_message(
                torch.randn(4, 3),
                torch.randn(5, 2),
                torch.randn(2, 3),
                torch.zeros(2, 5, dtype=torch.int64),  # type: ignore[arg-type]
                antipode,
            )


def test_a_graph_on_another_device() -> None:
    graph = random_graph(4, 3, 5).to("meta")
    with pytest.raises(ValueError, match=r"graph must be on the device of x, cpu, but is on meta$"):
        pair_message(torch.randn(4, 2, 3), torch.randn(5, 2, 3), torch.randn(3, 3), graph)
