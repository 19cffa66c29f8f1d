"""pair_message against the PyTorch that people write, compiled too, and torch_geometric where installed.

    python -m equiconv bench --preset pair_message

One layer on random points: the bulk of the promises, and batches of small clouds as in published tasks. What
is promised is promised of two threads.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

import equiconv
from equiconv import Graph
from equiconv.reference import pair_message as reference

from .harness import DIRECTIONS, DTYPES, Case, Entry, Inputs, Op, Results, ratio
from .promises import Point, Promise

HAS_PYG = importlib.util.find_spec("torch_geometric") is not None


@dataclass(frozen=True, kw_only=True)
class PairCase(Case):
    """A layer: `length` points in all, `degree` pairs a receiver, `channels`; clouds of `cloud` points are
    complete instead, and where `cloud` is 0 the points are one graph with random senders. `dense`: the weight
    has a filter of every channel for every other. `antipodal`: the graph is undirected (of an even
    degree), and one basis row serves both directions of a pair."""

    op: str = "pair_message"
    batch: int = 1
    degree: int
    orientations: int
    functions: int
    cloud: int = 0
    dense: bool = False
    antipodal: bool = False

    settings: ClassVar[tuple[str, ...]] = ("op", "direction", "dtype", "dense", "antipodal", "device")

    @property
    def sizes(self) -> dict[str, str]:
        points = f"{self.length // self.cloud} × {self.cloud}" if self.cloud else str(self.length)
        counts = {"degree": self.degree, "O": self.orientations, "K": self.functions, "C": self.channels}
        return {"points": points, **{name: str(count) for name, count in counts.items()}}

    @property
    def elements(self) -> int:
        return self.length * self.degree * self.orientations * self.channels

    @property
    def reversals(self) -> int:
        """Pairs that have the basis row of another."""
        loops = self.length if self.cloud else 0
        return (self.length * self.degree - loops) // 2 if self.antipodal else 0


def graph(case: Case) -> Graph:
    assert isinstance(case, PairCase)
    if case.cloud:
        clouds = [case.cloud] * (case.length // case.cloud)
        return Graph.complete(clouds, undirected=case.antipodal, device=case.device)
    generator = torch.Generator().manual_seed(1)
    degree = case.degree // 2 if case.antipodal else case.degree
    senders = torch.randint(case.length, (case.length * degree,), generator=generator)
    receivers = torch.arange(case.length).repeat_interleave(degree)
    senders = senders.view(case.length, degree).sort(-1).values.flatten()
    make = Graph.undirected if case.antipodal else Graph.from_pairs
    return make(senders.to(case.device), receivers.to(case.device), case.length)


def antipode(case: Case) -> Tensor | None:
    assert isinstance(case, PairCase)
    return torch.arange(case.orientations, device=case.device).flip(0) if case.antipodal else None


def inputs(case: Case) -> Inputs:
    assert isinstance(case, PairCase)
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (case.length, case.orientations, case.channels),
        "basis": (case.length * case.degree - case.reversals, case.orientations, case.functions),
        "weight": (case.functions, *[case.channels] * (1 + case.dense)),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors["weight"] /= math.sqrt(case.functions * case.degree)
    return {name: tensor.to(case.device, DTYPES[case.dtype]) for name, tensor in tensors.items()}


def eager(x: Tensor, basis: Tensor, weight: Tensor, graph: Graph, antipode: Tensor | None = None) -> Tensor:
    """The expression in the code of point-cloud models."""
    if antipode is not None:
        basis = torch.cat((basis, basis[: graph.num_pairs - len(basis), antipode]))
    if weight.dim() == 2:
        message = (basis @ weight) * x[graph.senders]
    else:
        filter = torch.tensordot(basis, weight, 1)
        message = (x[graph.senders][..., None, :] @ filter).squeeze(-2)
    out = message.new_zeros(graph.num_receivers, *message.shape[1:])
    return out.index_add_(0, graph.receivers, message)


def propagate() -> Callable[..., Tensor]:
    """torch_geometric's message passing."""
    from torch_geometric.nn import MessagePassing  # type: ignore[import-not-found,import-untyped,unused-ignore]

    class Layer(MessagePassing):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__(aggr="add", node_dim=0)

        def forward(self, x: Tensor, basis: Tensor, weight: Tensor, graph: Graph, antipode: None) -> Any:
            edge_index = torch.stack([graph.senders, graph.receivers])
            return self.propagate(edge_index, x=x, filter=basis @ weight)

        def message(self, x_j: Tensor, filter: Tensor) -> Tensor:
            return x_j * filter

    return Layer()


BASELINES = ("eager", *(["propagate"] if HAS_PYG else []))

PAIR_MESSAGE = Op(
    name="pair_message",
    inputs=inputs,
    options=lambda case: {"graph": graph(case), "antipode": antipode(case)},
    contestants={
        "equiconv": equiconv.pair_message,
        "eager": eager,
        **({"propagate": propagate()} if HAS_PYG else {}),
    },
    reference=reference.pair_message,
    case=PairCase,
)

# ---- the promises, and the sizes of published tasks --------------------------------------------------------

THREADS = 2
BULK = PairCase(length=1000, degree=16, orientations=16, functions=128, channels=128)
NARROW = replace(BULK, functions=16)
DENSE = PairCase(length=1000, degree=16, orientations=1, functions=16, channels=32, dense=True)
TASKS = (
    PairCase(length=500, cloud=5, degree=5, orientations=16, functions=256, channels=128),  # N-body
    PairCase(length=105, cloud=21, degree=21, orientations=20, functions=256, channels=128),  # rMD17 aspirin
    PairCase(length=96 * 18, cloud=18, degree=18, orientations=16, functions=256, channels=256),  # QM9
)


def faster_than(
    baseline: str, case: PairCase, direction: str = "forward"
) -> Callable[[Results], Iterator[Point]]:
    def points(results: Results) -> Iterator[Point]:
        at = replace(case, direction=direction)
        yield ratio(results, at, baseline), at

    return points


def cost_of_bfloat16(results: Results) -> Iterator[Point]:
    for direction in DIRECTIONS:
        case = replace(BULK, direction=direction)
        half = replace(case, dtype="bfloat16")
        yield results[Entry(half, "equiconv")].median / results[Entry(case, "equiconv")].median, half


PROMISES = (
    Promise("forward, K = C = 128: 4.5 times as fast as eager", 4.5, faster_than("eager", BULK), True),
    Promise("forward, K = C = 128: 2.5 times as fast as compiled", 2.5, faster_than("compile", BULK), True),
    Promise("forward, K = 16: 9 times as fast as eager", 9.0, faster_than("eager", NARROW), True),
    Promise(
        "forward and backward, K = C = 128: 3 times as fast as eager",
        3.0,
        faster_than("eager", BULK, "backward"),
        True,
    ),
    Promise("bfloat16 takes no longer than float32", 1.0, cost_of_bfloat16, False),
)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns.

    What torch.compile makes has threads of its own, which go on waiting for work beside those of PyTorch and
    slow down all that runs after: it comes last.
    """
    plan = []
    for direction, cases in (("backward", (BULK, NARROW, *TASKS)), ("forward", (NARROW, *TASKS, BULK))):
        for case in cases:
            timed = replace(case, direction=direction)
            entries = [Entry(timed, contestant) for contestant in ("equiconv", *BASELINES)]
            if case is BULK:
                entries.append(Entry(replace(timed, dtype="bfloat16"), "equiconv"))
                entries.append(Entry(replace(timed, antipodal=True), "equiconv"))
            plan.append(entries)
    plan[-1].append(Entry(BULK, "compile"))
    for direction in DIRECTIONS:
        case = replace(DENSE, direction=direction)
        plan.insert(0, [Entry(case, contestant) for contestant in ("equiconv", "eager")])
    return plan
