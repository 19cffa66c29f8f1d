from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.pair_moments import pair_moments as on_emulator
from test_pair_message import CLOUD, SHARED, random_graph
from test_pair_message import sample as of_messages
from torch import Tensor

from equiconv import Graph, pair_message, pair_moments
from equiconv.graph import Csr
from equiconv.reference.pair_moments import pair_moments as reference


def sample(name: str, *sizes: int, **kind: Any) -> Sample:
    """Senders, receivers, pairs, orientations, functions and channels."""
    with_weight = of_messages(name, *sizes, **kind)
    tensors = {name: axes for name, axes in with_weight.tensors.items() if name != "weight"}
    return dataclasses.replace(with_weight, tensors=tensors)


SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("bundle", 4, 3, 5, 2, 3, 3),
    sample("cloud", 4, 4, 7, 1, 3, 2, **CLOUD),
    sample("shared", 3, 3, 6, 2, 2, 3, **SHARED),
    sample("strided", 3, 4, 5, 2, 3, 2, strided=True),
    sample("one-of-all", 1, 1, 1, 1, 1, 1),
    sample("isolated", 3, 9, 2, 2, 2, 2),
    sample("no-pairs", 3, 4, 0, 2, 3, 2),
    sample("no-points", 0, 0, 0, 2, 3, 2),
    sample("no-receivers", 3, 0, 0, 1, 3, 2, **CLOUD),
    sample("no-channels", 3, 3, 4, 2, 3, 0),
    sample("no-functions", 3, 3, 4, 2, 0, 3),
    sample("no-orientations", 3, 3, 4, 0, 2, 3),
    # Larger: sizes that fill tiles and that do not, receivers with more pairs than are taken at a time.
    sample("tiles", 20, 20, 120, 4, 64, 64),
    sample("odd", 30, 25, 131, 3, 37, 29),
    sample("wide", 12, 7, 100, 2, 5, 150),
    sample("deep", 12, 7, 100, 2, 200, 9),
    sample("many-orientations", 6, 5, 40, 21, 12, 40),
    sample("cloud-large", 60, 50, 700, 1, 33, 48, **CLOUD),
    sample("shared-large", 20, 3, 200, 8, 16, 33, **SHARED),
    sample("shared-wide", 20, 15, 240, 2, 32, 96, **SHARED),
    sample("one-receiver", 50, 1, 500, 2, 8, 20),
    sample("one-sender", 1, 50, 400, 2, 8, 20),
    sample("many-receivers", 40, 3000, 500, 1, 4, 16),
    sample("strided-large", 20, 20, 90, 5, 20, 35, strided=True),
    sample("strided-shared", 20, 20, 90, 5, 20, 35, strided=True, **SHARED),
)

REFUSALS = (
    Refusal("pair_moments: x must be (S, O, C) or (S, C), but has shape (2,)", {"x": lambda x: x[0, :, 0]}),
    Refusal(
        "pair_moments: x must be float32, float64, bfloat16 or float16, but is int64",
        {"x": lambda x: x.long()},
    ),
    Refusal("pair_moments: x must have a row for each sender of graph, 4, but has 3", {"x": lambda x: x[1:]}),
    Refusal(
        "pair_moments: basis must be (E, O, K) or (E, K), but has shape (5,)", {"basis": lambda b: b[:, 0, 0]}
    ),
    Refusal(
        "pair_moments: basis must be (E, K) where x is (S, C), but has shape (5, 2, 3)",
        {"x": lambda x: x[:, 0]},
    ),
    Refusal(
        "pair_moments: basis must have the dtype of x, float32, but has float64",
        {"basis": lambda b: b.double()},
    ),
    Refusal(
        "pair_moments: basis must have a row for each pair of graph, 5, but has 4", {"basis": lambda b: b[1:]}
    ),
    Refusal(
        "pair_moments: basis must have the orientations of x, 2, but has 1", {"basis": lambda b: b[:, 1:]}
    ),
    Refusal(
        "pair_moments: basis must be on the device of x, {device}, but is on meta",
        {"basis": lambda b: b.to("meta")},
    ),
    Refusal(
        "pair_moments: x must have a row for each sender of graph, 5, but has 4",
        options={"graph": random_graph(5, 3, 5)},
    ),
    Refusal(
        "pair_moments: basis must have a row for each pair of graph, 6, but has 5",
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
        draw(st.integers(1, 120)),
        1 if kind is CLOUD else draw(st.integers(1, 5)),
        draw(st.integers(1, 75)),
        draw(st.integers(1, 70)),
        strided=draw(st.booleans()),
        **kind,
    )


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    graph = options["graph"]
    args = (*tensors.values(), *graph.by_receiver, *graph.by_sender)
    grad_out = torch.randn_like(pair_moments(**tensors, **options)).requires_grad_()
    yield torch.ops.equiconv.pair_moments.default, args
    yield torch.ops.equiconv.pair_moments_backward.default, (grad_out, *args, True, True)
    yield torch.ops.equiconv.pair_moments_backward.default, (grad_out, *args, False, True)


class TestContract(contract.Contract):
    op = Op(
        function=pair_moments,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("x",), ("basis",)),
        grown=lambda sizes: {
            "S": sizes["S"] + 3,
            "R": sizes["R"] + 7,
            "E": sizes["E"] + 11,
            "K": sizes["K"] + 1,
            "C": sizes["C"] + 2,
        },
        weights=(),
        exact=reference,
        of_squares=reference,  # the op sums products of the arguments' entries
        dispatched=dispatched,
        on_emulator=on_emulator,
    )


# ---- what is special about moments -------------------------------------------------------------------------


def test_a_weight_makes_messages_of_them() -> None:
    """Σ_k weight[k, c] of the moments is what pair_message makes."""
    graph = random_graph(9, 8, 40)
    x, b, w = torch.randn(9, 3, 21), torch.randn(40, 3, 17), torch.randn(17, 21)
    messages = (pair_moments(x, b, graph) * w).sum(2)
    torch.testing.assert_close(messages, pair_message(x, b, w, graph), rtol=1e-4, atol=1e-4)


def test_the_order_of_pairs_changes_no_bit() -> None:
    senders, receivers = torch.where(torch.rand(20, 20) < 0.4)
    order = torch.randperm(len(senders))
    graph, other = (Graph.from_pairs(senders[i], receivers[i], 20) for i in (slice(None), order))
    x = torch.randn(20, 2, 20, requires_grad=True)
    b = torch.randn(len(senders), 2, 9, requires_grad=True)
    results = []
    for basis, pairs in ((b, graph), (b[order], other)):
        y = pair_moments(x, basis, pairs)
        results.append([y, *torch.autograd.grad(y, (x, b), contract.random_like(y))])
    contract.assert_same_bits(results[1], results[0])


def test_nan_stays_with_the_receivers_of_its_point() -> None:
    graph = random_graph(25, 25, 60)
    x, b = torch.randn(25, 2, 20), torch.randn(60, 2, 6)
    clean = pair_moments(x, b, graph)
    x[3] = float("nan")
    y = pair_moments(x, b, graph)
    reached = torch.zeros(25, dtype=torch.bool)
    reached[graph.receivers[graph.senders == 3]] = True
    assert y[reached].isnan().all()
    contract.assert_same_bits([y[~reached]], [clean[~reached]])


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
        contract.value_and_gradients(pair_moments, s, tensors)
        for s in (narrow, dataclasses.replace(narrow, rest={"graph": wide}))
    ]
    contract.assert_same_bits(*results)
