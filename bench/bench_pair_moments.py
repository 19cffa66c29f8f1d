"""pair_moments against the PyTorch that people write, compiled too.

    python -m equiconv bench --preset pair_moments

Sums that keep every basis function and channel apart, at sizes of dense filters and of spherical harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

import equiconv
from equiconv import Graph
from equiconv.reference import pair_moments as reference

from . import bench_pair_message
from .bench_pair_message import PairCase, graph
from .harness import DIRECTIONS, Case, Entry, Inputs, Op
from .promises import Promise


@dataclass(frozen=True, kw_only=True)
class MomentsCase(PairCase):
    op: str = "pair_moments"

    settings: ClassVar[tuple[str, ...]] = ("op", "direction", "dtype", "device")

    @property
    def elements(self) -> int:
        return self.length * self.orientations * self.functions * self.channels


def inputs(case: Case) -> Inputs:
    of_message = bench_pair_message.inputs(case)
    return {name: of_message[name] for name in ("x", "basis")}


def eager(x: Tensor, basis: Tensor, graph: Graph) -> Tensor:
    """The expression in the code of point-cloud models."""
    message = basis[..., None] * x[graph.senders][..., None, :]
    out = message.new_zeros(graph.num_receivers, *message.shape[1:])
    return out.index_add_(0, graph.receivers, message)


PAIR_MOMENTS = Op(
    name="pair_moments",
    inputs=inputs,
    options=lambda case: {"graph": graph(case)},
    contestants={"equiconv": equiconv.pair_moments, "eager": eager},
    reference=reference.pair_moments,
    case=MomentsCase,
)

FILTERS = MomentsCase(length=1000, degree=16, orientations=1, functions=16, channels=32)
BUNDLE = replace(FILTERS, orientations=4, functions=32)
HARMONICS = replace(FILTERS, functions=9, channels=128)  # up to degree 2

THREADS = 2
PROMISES: tuple[Promise, ...] = ()


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns. What torch.compile makes comes last."""
    cases = [
        replace(case, direction=direction)
        for case in (FILTERS, BUNDLE, HARMONICS)
        for direction in DIRECTIONS
    ]
    plan = [[Entry(case, contestant) for contestant in ("equiconv", "eager")] for case in cases]
    compiled = [[Entry(case, contestant) for contestant in ("equiconv", "compile")] for case in cases]
    return plan + compiled
