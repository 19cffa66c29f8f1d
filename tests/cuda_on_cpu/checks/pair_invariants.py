"""What pair_invariants' CUDA kernels are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..device import Device
from . import Allowance, Mutation, Sampled

KERNELS = "pair_invariants.cu"


@dataclass(frozen=True)
class AtZero(Sampled):
    """With the first pair's points at one place, where lengths have derivatives of zero."""

    def __str__(self) -> str:
        return f"{super().__str__()}-at-zero"

    def _made(self) -> tuple[Any, Any, dict[str, Any]]:
        op, sample, tensors = super()._made()
        tensors["rel"].detach()[0] = 0
        return op, sample, tensors


@dataclass(frozen=True)
class Changed(Sampled):
    """What the result and the gradients change by, against the same by the CPU's kernels in float64."""

    across: bool = False  # the gradient of the result lies with its features apart

    def __str__(self) -> str:
        return f"{super().__str__()}-changed{'-across' if self.across else ''}"

    def _changes(self) -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
        import contract

        op, sample, tensors = self._made()
        changes = sample.make(next(iter(tensors.values())).dtype, "cpu", seed=1)
        changes.pop("grid", None)
        grad_out = contract.random_like(op.reference(**contract.detached(tensors), **sample.options))
        if self.across:
            grad_out = grad_out.mT.contiguous().mT
        return sample, contract.detached(tensors), contract.detached(changes), grad_out

    def run(self, device: Device) -> dict[str, np.ndarray]:
        from ..pair_invariants import tangent

        sample, tensors, changes, grad_out = self._changes()
        found = tangent(device, tensors, sample.options, grad_out, changes)
        return {n: t.double().numpy() for n, t in zip(["out", *changes], found, strict=True)}

    def expected(self) -> dict[str, np.ndarray]:
        import torch

        sample, tensors, changes, grad_out = self._changes()
        given = [tensors[n].double() if n in tensors else None
                 for n in ("rel", "grid", "receiver", "sender", "extra")]  # fmt: skip
        names = ("rel", "receiver", "sender", "extra")
        changed = [changes[n].double() if n in changes else None for n in names]
        rest = [sample.options.get("complete", False), sample.options.get("smooth", False),
                sample.options["degree"]]  # fmt: skip
        needs = (True,) * 5
        made = torch.ops.equiconv.pair_invariants_tangent(grad_out.double(), *given, *changed, *rest, *needs)
        return {
            n: t.numpy() for n, t in zip(("out", *names), made, strict=True) if n == "out" or n in changes
        }

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        allowed = 1e-10 if self.dtype == "float64" else 1e-5

        def is_right(name: str) -> bool:
            error = np.abs(results[name] - expected[name]).max()
            return bool(error <= allowed * np.abs(expected[name]).max())

        return [name for name in results if not is_right(name)]


# Between them every line: each space, with senders and without, more orientations than threads, features that
# leave room for few of these.
CALLS = [
    *((Sampled("pair_invariants", name, dtype), 90)
      for name in ("odd", "cloud", "plane-cloud", "line", "smooth", "strided", "many-orientations",
                   "many-features")
      for dtype in ("float32", "float64", "bfloat16", "float16")),
    *((Changed("pair_invariants", name, "float32"), 90)
      for name in ("odd", "cloud", "plane-cloud", "distance", "smooth", "many-orientations")),
    *((Changed("pair_invariants", name, "float64"), 90) for name in ("odd", "plane-cloud", "distance")),
    (Changed("pair_invariants", "bundle", "float32", across=True), 90),
    *((AtZero("pair_invariants", name, "float32"), 90) for name in ("bundle", "distance")),
]  # fmt: skip

ACCESSES = [
    *(Sampled("pair_invariants", name, dtype)
      for name in ("vectors", "plane-large", "cloud-large")
      for dtype in ("float32", "float64", "bfloat16")),
    Changed("pair_invariants", "vectors", "float32"),
]  # fmt: skip

ALLOWANCES = [
    Allowance("pair_pass", "shared", 2.0, lambda call: True,
              "the sums of two pairs share a bank where one line stores them, so that none do where they are "
              "added up; the two numbers of a dual one lie side by side"),
    Allowance("pair_pass", "global", 1.3, lambda call: "bfloat16" in str(call),
              "the rows of a block begin amid sectors"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before staged rows are read", KERNELS,
             "    __syncthreads();\n\n    if (thread < rows) {", "\n    if (thread < rows) {"),
    Mutation("missing barrier", "before features are stored", KERNELS,
             "    if (!a.out.data) continue;\n    __syncthreads();", "    if (!a.out.data) continue;"),
    Mutation("missing barrier", "before more orientations come", KERNELS,
             "    if (begin) __syncthreads();  // readers of what comes now\n", ""),
    Mutation("missing barrier", "before the sums of a pair are added up", KERNELS,
             "  __syncthreads();\n  const auto add_up", "  const auto add_up"),
    Mutation("missing guard", "pairs past the last one", KERNELS,
             "int(size.pairs - first < tile.pairs ? size.pairs - first : tile.pairs)", "tile.pairs"),
    Mutation("missing guard", "orientations past the last one", KERNELS,
             "int(size.orientations - begin < tile.slots ? size.orientations - begin : tile.slots)",
             "tile.slots"),
    Mutation("missing guard", "absent senders", KERNELS, "  if (!value.data) return;\n", ""),
    Mutation("off by one", "a sum's first orientation twice", KERNELS,
             "for (int slot = 1; slot < tile.slots", "for (int slot = 0; slot < tile.slots"),
    Mutation("wrong index", "the first pair's vectors for all", KERNELS,
             "at.rel[i] = shared.rel[pair * kPitch + i];", "at.rel[i] = shared.rel[i];"),
    Mutation("wrong index", "the grid's first orientations again", KERNELS,
             "grid, InputRows{}, begin, slots,", "grid, InputRows{}, 0, slots,"),
    Mutation("wrong stride", "rows of a strided gradient", KERNELS,
             "orientation * a.grad_out.orientation", "orientation * size.features"),
    Mutation("wrong tail", "a feature at the end of a row", KERNELS,
             "if (feature >= features) feature -= features, ++row;",
             "if (feature > features) feature -= features, ++row;"),
    Mutation("dropped sum", "of the extra attributes the last orientations only", KERNELS,
             "sum[(3 * n + i) * tile.summands] +=", "sum[(3 * n + i) * tile.summands] ="),
    Mutation("too little shared memory", "the sums forgotten", KERNELS,
             "take(sums, gradients ? tile.summands * tile.sums : 0);", "take(sums, 0);"),
    Mutation("wrong formula", "a length whose derivative is infinite at zero", KERNELS,
             "    if (!(squared > R(0))) return {R(0), R(0)};\n", ""),
    Mutation("wrong factor", "the derivative of a root", KERNELS, "return R(0.5);", "return R(1);"),
]  # fmt: skip
