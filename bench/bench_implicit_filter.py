"""implicit_filter against the PyTorch that people write, compiled too.

    python -m equiconv bench --preset implicit_filter

Filters of 256 channels by Hyena's usual network: 33 features of a position, 128 between the layers, one inner
layer. What is promised is promised of two threads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

import equiconv
from equiconv.reference import implicit_filter as reference

from .harness import DIRECTIONS, DTYPES, Case, Entry, Inputs, Op
from .promises import Promise

NAMES = (*("features", "first_weight", "first_bias", "inner_weight", "inner_bias", "output_weight", "rates"),)
FIXED = ("features", "rates")  # nothing is learned of these, and no gradient is made
LEARNED = tuple(name for name in NAMES if name not in FIXED)


@functools.cache
def arguments(length: int, channels: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        network = equiconv.nn.ImplicitFilter(channels, length).network(length)
    return dict(zip(NAMES, network, strict=True))


def of(case: Case, names: Iterable[str]) -> Inputs:
    given = arguments(case.length, case.channels)
    return {name: given[name].detach().clone().to(case.device, DTYPES[case.dtype]) for name in names}


IMPLICIT_FILTER = Op(
    name="implicit_filter",
    inputs=lambda case: of(case, LEARNED),
    options=lambda case: of(case, FIXED),
    contestants={"equiconv": equiconv.implicit_filter, "eager": reference.implicit_filter},
    reference=reference.implicit_filter,
)

THREADS = 2
PROMISES: tuple[Promise, ...] = ()
LENGTHS = (1024, 4096, 16384)


def case(length: int, direction: str) -> Case:
    return Case(
        op="implicit_filter",
        length=length,
        batch=1,
        channels=256,
        filter="shared",
        gates=False,
        direction=direction,
    )


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns. What torch.compile makes comes last."""
    cases = [case(length, direction) for length in LENGTHS for direction in DIRECTIONS]
    plan = [[Entry(one, contestant) for contestant in ("equiconv", "eager")] for one in cases]
    compiled = [[Entry(one, contestant) for contestant in ("equiconv", "compile")] for one in cases[-2:]]
    return plan + compiled
