from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import torch
from contract import Op, Refusal, Sample
from torch import Tensor

from equiconv import Graph, pair_message
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
    Refusal("pair_message: weight must be (K, C), but has shape (3,)", {"weight": lambda w: w[0]}),
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
        devices=("cpu",),
    )
