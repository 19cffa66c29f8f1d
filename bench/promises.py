"""What the library promises of itself on a CPU, and the run that tells whether it keeps it.

    python -m equiconv bench --preset promises

Two threads, float32, a filter per sample, both gates, causal, (B, D, L), forward and backward, unless a
promise says otherwise. A promise is judged at its worst point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from . import harness
from .harness import DIRECTIONS, Case, Entry, Results, ratio, sizes

KIB = 1024
ELEMENTS = harness.ELEMENTS["cpu"]
LENGTHS = (1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB)
GROWTH_LENGTHS = (*LENGTHS, 1024 * KIB)
THREADS = 2

Point = tuple[float, Case]
"""A measured figure, and the case it was measured in."""


@dataclass(frozen=True)
class Promise:
    text: str
    bound: float
    points: Callable[[Results], Iterator[Point]]
    at_least: bool

    def verdict(self, results: Results) -> Verdict:
        worst = min if self.at_least else max
        value, case = worst(self.points(results), key=lambda point: point[0])
        kept = value >= self.bound if self.at_least else value <= self.bound
        return Verdict(self, value, case, kept)


@dataclass(frozen=True)
class Verdict:
    promise: Promise
    value: float
    case: Case
    kept: bool


def base_case(length: int, direction: str) -> Case:
    batch, channels = sizes(length, ELEMENTS)
    return Case(op="fft_conv", length=length, batch=batch, channels=channels, direction=direction)


def faster_than(baseline: str, lengths: Sequence[int]) -> Callable[[Results], Iterator[Point]]:
    """How many times as long as equiconv the baseline takes."""

    def points(results: Results) -> Iterator[Point]:
        for length in lengths:
            for direction in DIRECTIONS:
                case = base_case(length, direction)
                yield ratio(results, case, baseline), case

    return points


def cost_of(**setting: str) -> Callable[[Results], Iterator[Point]]:
    """How many times as long equiconv takes in another setting."""

    def points(results: Results) -> Iterator[Point]:
        for length in LENGTHS:
            for direction in DIRECTIONS:
                case = base_case(length, direction)
                other = replace(case, **setting)  # type: ignore[arg-type]
                yield median(results, other) / median(results, case), other

    return points


def growth(results: Results) -> Iterator[Point]:
    """The time per element and log2 L at one length, over that at any shorter one."""
    for direction in DIRECTIONS:
        cases = [growth_case(length, direction) for length in GROWTH_LENGTHS]
        costs = [median(results, c) / (c.elements * math.log2(c.length)) for c in cases]
        for i, case in enumerate(cases[1:], start=1):
            yield costs[i] / min(costs[:i]), case


def median(results: Results, case: Case) -> float:
    return results[Entry(case, "equiconv")].median


PROMISES = (
    Promise("5 times as fast as eager, L = 4k and 16k", 5.0, faster_than("eager", LENGTHS[1:3]), True),
    Promise(
        "4 times as fast as eager, L = 1k, 64k and 256k",
        4.0,
        faster_than("eager", (LENGTHS[0], *LENGTHS[3:])),
        True,
    ),
    Promise("2.5 times as fast as handwritten, every L", 2.5, faster_than("handwritten", LENGTHS), True),
    Promise("bfloat16 takes no longer than float32", 1.0, cost_of(dtype="bfloat16"), False),
    Promise("(B, L, D) takes at most 1.25 times (B, D, L)", 1.25, cost_of(layout="bld"), False),
    Promise("cost grows as L log L, within 2 times, 1k to 1M", 2.0, growth, False),
)


def growth_case(length: int, direction: str) -> Case:
    """Lengths are timed in turns, each with the same number of elements in one batch entry."""
    return replace(base_case(length, direction), batch=1, channels=ELEMENTS // length)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns."""
    plan = []
    for direction in DIRECTIONS:
        for length in LENGTHS:
            case = base_case(length, direction)
            plan.append(
                [
                    *(Entry(case, contestant) for contestant in ("equiconv", "eager", "handwritten")),
                    Entry(replace(case, dtype="bfloat16"), "equiconv"),
                    Entry(replace(case, layout="bld"), "equiconv"),
                ]
            )
        plan.append([Entry(growth_case(length, direction), "equiconv") for length in GROWTH_LENGTHS])
    return plan
