"""pair_invariants against its plain expression, compiled too.

    python -m equiconv bench --preset pair_invariants

Features up to degree 3. "backward" asks for the gradient of rel. With ``forces`` the outputs are themselves
gradients of rel, as forces are, and "backward" differentiates them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

import equiconv
from equiconv.reference import pair_invariants as reference

from .harness import DIRECTIONS, DTYPES, Case, Entry, Inputs, Op
from .promises import Promise


@dataclass(frozen=True, kw_only=True)
class InvariantsCase(Case):
    """`length` pairs in three dimensions: at so many orientations of a grid; with a receiver and a sender
    (1 of them); or with none, as distances (0)."""

    op: str = "pair_invariants"
    batch: int = 1
    channels: int = 1
    orientations: int
    degree: int = 3
    forces: bool = False

    settings: ClassVar[tuple[str, ...]] = ("op", "direction", "dtype", "forces", "device")

    @property
    def sizes(self) -> dict[str, str]:
        counts = {"E": self.length, "O": self.orientations, "degree": self.degree}
        return {name: str(count) for name, count in counts.items()}


def _random(case: Case, seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dtype = DTYPES[case.dtype]
    return lambda *shape: torch.randn(shape, generator=generator).to(case.device, dtype)


def inputs(case: Case) -> Inputs:
    return {"rel": _random(case, 0)(case.length, 3)}


def options(case: Case) -> dict[str, Any]:
    assert isinstance(case, InvariantsCase)
    random, pairs = _random(case, 1), case.length  # lengths have a kink where rel is along an orientation

    def unit(count: int) -> Tensor:
        vectors = random(count, 3)
        lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
        return vectors / lengths

    given: dict[str, Any] = {"degree": case.degree, "forces": case.forces}
    if case.orientations == 1:
        given |= {"receiver": unit(pairs), "sender": unit(pairs), "complete": True}
    elif case.orientations > 1:
        given["grid"] = unit(case.orientations)
    return given


def contestant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(rel: Tensor, *, forces: bool, **given: Any) -> Tensor:
        if not forces:
            return function(rel, **given)
        with torch.enable_grad():  # a force is a gradient, wanted or not
            rel = rel if rel.requires_grad else rel.detach().requires_grad_()
            energy = function(rel, **given).sin().sum()
            (gradient,) = torch.autograd.grad(energy, rel, create_graph=True)
        return gradient

    return run


PAIR_INVARIANTS = Op(
    name="pair_invariants",
    inputs=inputs,
    options=options,
    contestants={
        "equiconv": contestant(equiconv.pair_invariants),
        "eager": contestant(reference.pair_invariants),
    },
    reference=contestant(reference.pair_invariants),
    case=InvariantsCase,
)

BUNDLE = InvariantsCase(length=16000, orientations=16)
CLOUD = replace(BUNDLE, length=64000, orientations=1)
DISTANCES = replace(CLOUD, orientations=0, degree=1)

THREADS = 2
PROMISES: tuple[Promise, ...] = ()


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns. What torch.compile makes comes last, and has no forces:
    it cannot be differentiated twice. Nor has it distances, as it compiles a function a few times only."""
    cases = [
        replace(case, direction=direction) for case in (BUNDLE, CLOUD, DISTANCES) for direction in DIRECTIONS
    ]
    forces = [replace(case, forces=True, direction="backward") for case in (BUNDLE, CLOUD)]
    plan = [[Entry(case, name) for name in ("equiconv", "eager")] for case in (*cases, *forces)]
    return plan + [[Entry(case, name) for name in ("equiconv", "compile")] for case in cases[:4]]
