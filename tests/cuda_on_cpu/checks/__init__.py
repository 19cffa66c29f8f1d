"""What the CUDA kernels of each op are checked with. checks/<op>.py may hold

    CALLS       calls, each with the architecture the device has: between them they reach every line
    LARGE       calls of many points, for the quick build of a mutant only
    ACCESSES    calls whose accesses to memory are counted
    ALLOWANCES  what may be over the ceilings of accesses, and why
    MUTATIONS   mistakes to plant
    ALSO        ops whose launchers this one's call

Without CALLS the samples of the op's contract are called, in every dtype; without ACCESSES in two.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import build
from ..device import Device

DTYPES = ("float32", "float64", "bfloat16", "float16")
OPS = tuple(path.stem for path in sorted(build.KERNELS.glob("*.cu")))


class Call(Protocol):
    """One call of an op, forward and backward."""

    def run(self, device: Device) -> dict[str, np.ndarray]:
        """The result and the gradients, by the CUDA kernels."""

    def expected(self) -> dict[str, np.ndarray]: ...

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        """The names of those that are further from what is expected than rounding explains."""


@dataclass(frozen=True)
class Allowance:
    """A higher ceiling, where it is the caller's data or a choice that has its reason."""

    kernels: str  # a regular expression
    memory: str
    ceiling: float
    when: Callable[[Any], bool]  # of the call
    reason: str


@dataclass(frozen=True)
class Mutation:
    """Replaces a piece of source that must be there exactly once. One that changes nothing a caller could see
    is no mutation: where a kernel changed and made it so, exchange it for another."""

    kind: str
    name: str
    file: str
    old: str
    new: str

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def of(self, source: str) -> str:
        if (found := source.count(self.old)) != 1:
            raise ValueError(f"{self}: {self.file} holds {found} times, not once, the text\n{self.old}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Sampled:
    """A sample of one of the op's contracts (tests/test_<op>.py), in one dtype."""

    op: str
    sample: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.sample}-{self.dtype}"

    def _made(self) -> tuple[Any, Any, dict[str, Any]]:
        import torch

        classes = vars(importlib.import_module(f"test_{self.op}")).values()
        ops = (kind.op for kind in classes if hasattr(kind, "op"))
        op, sample = next((op, s) for op in ops for s in op.samples if s.name == self.sample)
        return op, sample, sample.make(getattr(torch, self.dtype), "cpu")

    def run(self, device: Device) -> dict[str, np.ndarray]:
        import contract

        op, sample, tensors = self._made()
        given = contract.detached(tensors)
        grad_out = contract.random_like(op.reference(**given, **sample.options))
        y, *gradients = op.on_emulator(device, given, sample.options, grad_out)
        results = {"y": y} | {f"grad_{name}": g for name, g in zip(tensors, gradients, strict=True)}
        return {n: (r.cdouble() if r.is_complex() else r.double()).numpy() for n, r in results.items()}

    def expected(self) -> dict[str, np.ndarray]:
        return {}  # the contract compares with several references

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        import contract
        import torch

        op, sample, tensors = self._made()
        dtypes = [getattr(torch, self.dtype), *(tensor.dtype for tensor in tensors.values())]
        ours = [torch.from_numpy(a).to(dtype) for a, dtype in zip(results.values(), dtypes, strict=True)]
        try:
            contract.check_against_reference(op, sample, tensors, ours)
        except AssertionError as error:
            return [str(error).splitlines()[0]]
        return []


@dataclass(frozen=True)
class Checks:
    op: str
    calls: list[tuple[Call, int]]
    large: list[tuple[Call, int]]
    accesses: list[Call]
    allowances: list[Allowance]
    mutations: list[Mutation]
    also: tuple[str, ...]


def of(op: str) -> Checks:
    """What checks/<op>.py holds, and the contract's samples for what it leaves out."""
    name = f"{__name__}.{op}"
    module = importlib.import_module(name) if importlib.util.find_spec(name) else None
    held = {name: getattr(module, name, []) for name in ("LARGE", "ALLOWANCES", "MUTATIONS")}
    calls, accesses = getattr(module, "CALLS", []), getattr(module, "ACCESSES", [])
    also = getattr(module, "ALSO", ())
    if not calls or not accesses:
        samples = importlib.import_module(f"test_{op}").TestContract.op.samples
        made = [Sampled(op, s.name, dtype) for dtype in DTYPES for s in samples if not s.empty]
        calls = calls or [(call, 90) for call in made]
        accesses = accesses or [call for call in made if call.dtype in ("float32", "bfloat16")]
    return Checks(op, calls, held["LARGE"], accesses, held["ALLOWANCES"], held["MUTATIONS"], also)
