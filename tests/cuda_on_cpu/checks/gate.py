"""What gate's CUDA kernels are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..device import Device
from . import Allowance, Mutation, Sampled

KERNELS, ACTIVATIONS = "gate.cu", "activations.cuh"


@dataclass(frozen=True)
class Derived(Sampled):
    """A derivative of the activation in its place, against the same by the CPU's kernels in float64."""

    order: int = 1
    wanted: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{super().__str__()}-order{self.order}"

    def run(self, device: Device) -> dict[str, np.ndarray]:
        import contract

        op, sample, tensors = self._made()
        given = contract.detached(tensors)
        grad_out = contract.random_like(op.reference(**given, **sample.options))
        names = tuple(tensors) if self.wanted is None else self.wanted
        y, *gradients = op.on_emulator(
            device, given, sample.options, grad_out, order=self.order, wanted=self.wanted
        )
        results = {"y": y} | {f"grad_{name}": g for name, g in zip(names, gradients, strict=True)}
        return {name: result.double().numpy() for name, result in results.items()}

    def expected(self) -> dict[str, np.ndarray]:
        import contract
        import torch

        from equiconv.ops.gate import NUMBERS

        op, sample, tensors = self._made()
        given = contract.detached(tensors)
        grad_out = contract.random_like(op.reference(**given, **sample.options)).double()
        leaves = {name: tensor.double().requires_grad_() for name, tensor in given.items()}
        arguments: list[Any] = [leaves.get(name) for name in ("x", "gate", "bias", "gate_bias")]
        rest = NUMBERS[sample.options["activation"]], sample.options["dim"], self.order
        y = torch.ops.equiconv.gate(*arguments, *rest)
        names = tuple(tensors) if self.wanted is None else self.wanted
        gradients = torch.autograd.grad(y, [leaves[name] for name in names], grad_out)
        results = {"y": y.detach()} | {f"grad_{n}": g for n, g in zip(names, gradients, strict=True)}
        return {name: result.numpy() for name, result in results.items()}

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        def is_right(name: str) -> bool:
            size = np.abs(expected[name]).max()
            return bool(np.abs(results[name] - expected[name]).max() <= 1e-5 * max(size, 1e-3))

        return [name for name in results if not is_right(name)]


@dataclass(frozen=True)
class Sliced(Sampled):
    """Rows side by side in memory that is an element wider, so that few of them begin at 16 bytes."""

    def __str__(self) -> str:
        return f"{super().__str__()}-sliced"

    def _made(self) -> tuple[Any, Any, dict[str, Any]]:
        op, sample, tensors = super()._made()
        for name in ("x", "gate"):
            rows = tensors[name].detach()
            wider = rows.new_zeros(*rows.shape[:-1], rows.shape[-1] + 1)
            wider[..., :-1] = rows
            tensors[name] = wider[..., :-1].requires_grad_()
        return op, sample, tensors


ALL = ("identity", "sigmoid", "silu", "gelu", "relu", "tanh")

# Between them every line: 16 bytes at a time and not, channels last and not, with sums and without.
CALLS = [
    *((Sampled("gate", name, dtype), 90)
      for name in ("sigmoid", "gelu-channels-first", "relu", "wide-rows", "wide-positions",
                   "uneven-positions", "bare")
      for dtype in ("float32", "float64", "bfloat16", "float16")),
    (Sliced("gate", "wide-rows", "float32"), 90),
    (Sampled("gate", "tanh-without-biases", "float32"), 90),  # no whole 16 bytes at its end
    (Sampled("gate", "float32-biases", "bfloat16"), 90),
    (Sampled("gate", "float32-biases", "float16"), 90),
    *((Derived("gate", f"{name}-small", "float32", order), 90) for name in ALL for order in (1, 2, 3)),
    (Derived("gate", "wide-rows", "float32", 0, ("bias",)), 90),
    (Derived("gate", "wide-positions", "float32", 0, ("gate_bias",)), 90),
    (Derived("gate", "wide-rows", "float32", 0, ("x",)), 90),
    (Derived("gate", "wide-rows", "float32", 0, ("gate",)), 90),
]  # fmt: skip

ACCESSES = [
    Sampled("gate", name, dtype)
    for name in ("wide-rows", "wide-positions", "bare")
    for dtype in ("float32", "float64", "bfloat16")
]

ALLOWANCES = [
    Allowance("add_parts", "global", 1.5, lambda call: "wide" in str(call),
              "partial sums of few channels fill no whole sectors"),
    Allowance("sum_rows", "global", 8.0, lambda call: "wide-rows" in str(call),
              "a lane's sums are of neighbouring channels, and stored once a block"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before the block's sums of rows are read", KERNELS,
             "    __syncthreads();\n    if (warp == 0)", "    if (warp == 0)"),
    Mutation("missing barrier", "between the two sums of rows", KERNELS,
             "    if (which) __syncthreads();  // readers of the first sums\n", ""),
    Mutation("missing barrier", "in the tree over positions", KERNELS,
             "    __syncthreads();\n    if (int(threadIdx.x) < half)", "    if (int(threadIdx.x) < half)"),
    Mutation("missing guard", "16 bytes past the last element", KERNELS,
             "if (at < t.elements) work.wide(t.place(at), along);", "work.wide(t.place(at), along);"),
    Mutation("missing guard", "an absent bias", KERNELS,
             "    if (!a.data) return Real<T>(-0.0);\n", ""),
    Mutation("wrong alignment", "16 bytes at odd strides", KERNELS,
             "wide = wide && a.stride[i] % kWidth<T> == 0;", "wide = wide && a.stride[i] > 0;"),
    Mutation("wrong alignment", "16 bytes at the end of a row of 7", KERNELS,
             "size.order == 0 && size.size[size.axes - 1] % kWidth<T> == 0 &&", "size.order == 0 &&"),
    Mutation("wrong index", "the first channels' bias for all", KERNELS,
             "else load_wide(v, static_cast<const T*>(a.data) + channel);",
             "else load_wide(v, static_cast<const T*>(a.data));"),
    Mutation("wrong type", "a float32 bias beside a half type", KERNELS,
             "if (a.dtype == DType::float32) load_wide(", "if (false) load_wide("),
    Mutation("wrong index", "a warp's rows", KERNELS,
             "row = parts.begin(part) + warp; row < end", "row = parts.begin(part); row < end"),
    Mutation("off by one", "the last row of a part", KERNELS, "end = parts.begin(part + 1);",
             "end = parts.begin(part + 1) - 1;"),
    Mutation("off by one", "a part of a sum", KERNELS,
             "part < parts.parts; ++part", "part < parts.parts - 1; ++part"),
    Mutation("dropped sum", "the terms since the last total", KERNELS,
             "  sums.add_up();\n\n  shared", "\n  shared"),
    Mutation("too little workspace", "for one sum of two", KERNELS,
             "return 2 * parts.parts * parts.channels *", "return parts.parts * parts.channels *"),
    Mutation("wrong formula", "relu's slope at negative gates", ACTIVATIONS,
             "{u <= R(0) ? R(0) : u, u <= R(0) ? R(0) : R(1)}", "{u <= R(0) ? R(0) : u, R(1)}"),
    Mutation("wrong sign", "derivatives of even order", ACTIVATIONS,
             "return (order + i) % 2 || u < R(0) ? sum : -sum;", "return sum;"),
]  # fmt: skip
