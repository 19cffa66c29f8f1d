"""What implicit_filter's CUDA kernels are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..device import Device
from ..fft_conv_cases import TOLERANCE
from . import Allowance, Mutation

if TYPE_CHECKING:
    from torch import Tensor

KERNELS, TILE = "implicit_filter.cu", "implicit_filter_tile.cuh"
SINES = "implicit_filter_sines.cuh"


@dataclass(frozen=True)
class Network:
    """One call. scale: of the first layer's angles, which are exactly its weights where it is not 1."""

    length: int
    features: int = 5
    order: int = 16
    inner: int = 1
    channels: int = 12
    dtype: str = "float32"
    strided: bool = False  # the filter's gradient is (L, D), and weights and features are transposed
    scale: float = 1.0

    def __str__(self) -> str:
        sizes = "x".join(map(str, (self.length, self.features, self.order, self.inner, self.channels)))
        large = f"-{self.scale:g}" * (self.scale != 1)
        return f"{sizes}-{self.dtype}{large}" + "-strided" * self.strided

    def tensors(self) -> tuple[dict[str, Tensor], Tensor]:
        """The arguments, and the gradient of the result."""
        import torch

        e, h, m, d = self.features, self.order, self.inner, self.channels
        of = torch.Generator().manual_seed(self.length)
        shapes = {
            "features": (self.length, e), "first_weight": (h, e), "first_bias": (h,),
            "inner_weight": (m, h, h), "inner_bias": (m, h), "output_weight": (d, h), "rates": (d,),
        }  # fmt: skip
        made = {n: torch.randn(shape, generator=of, dtype=torch.float64) for n, shape in shapes.items()}
        made["features"][:, 0] = torch.linspace(0, 1, self.length)
        made["first_weight"] *= self.scale / e**0.5
        if self.scale != 1:
            made["features"][:], made["first_bias"][:] = 1, 0
        made["inner_weight"] *= 1.5 / h**0.5
        made["rates"] = made["rates"].abs() * 3
        grad_out = torch.randn(self.length, d, generator=of, dtype=torch.float64).mT
        dtype = getattr(torch, self.dtype)
        if self.strided:
            made = {n: t.mT.contiguous().mT if t.dim() > 1 else t for n, t in made.items()}
        stored = {n: t.to(dtype) for n, t in made.items()}
        return stored, grad_out.to(dtype) if self.strided else grad_out.contiguous().to(dtype)

    def run(self, device: Device) -> dict[str, np.ndarray]:
        from ..implicit_filter import launched

        tensors, grad_out = self.tensors()
        return {n: t.double().numpy() for n, t in launched(device, tensors, grad_out).items()}

    def expected(self) -> dict[str, np.ndarray]:
        import torch

        from equiconv.reference import implicit_filter as reference

        from ..implicit_filter import WEIGHTS

        tensors, grad_out = self.tensors()
        exact = {n: t.double().requires_grad_(n in WEIGHTS) for n, t in tensors.items()}
        filter = reference.implicit_filter(**exact)
        wanted = [exact[n] for n in WEIGHTS]
        gradients = torch.autograd.grad(filter, wanted, grad_out.double(), materialize_grads=True)
        found = {"filter": filter.detach()}
        found |= {f"grad_{n}": t for n, t in zip(WEIGHTS, gradients, strict=True)}
        return {n: t.numpy() for n, t in found.items()}

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        allowed = 4 * TOLERANCE[self.dtype]
        found = []
        for name, exact in expected.items():
            error = np.linalg.norm(results[name] - exact) / max(np.linalg.norm(exact), 1e-30)
            if exact.size and not error <= allowed:
                found.append(f"{name}: error {error:.1e}, allowed {allowed:.1e}")
        return found


# Between them every line: one tile and several, strides of both kinds, every dtype, no inner layer
# and two, more positions than are taken at a time, angles past those that are reduced in float32.
CALLS = [
    (Network(70), 90),
    (Network(130, 9, 72, 2, 70), 90),
    (Network(67, 3, 7, 0, 5, strided=True), 90),
    (Network(1, 1, 1, 1, 1), 80),
    (Network(40, 1, scale=1e12), 90),
    (Network(16384 + 70, 1, 2, 1, 1), 90),
    (Network(130, 9, 72, 1, 40, "float64"), 90),
    (Network(67, 3, 7, 2, 5, "float64", strided=True), 90),
    (Network(70, 5, 16, 1, 12, "bfloat16"), 90),
    (Network(70, 5, 16, 1, 12, "float16", strided=True), 90),
]

ACCESSES = [
    Network(128, 32, 64, 1, 64),
    Network(128, 32, 64, 1, 64, "float64"),
    Network(128, 32, 64, 1, 64, "bfloat16"),
    Network(128, 33, 64, 1, 64),
]

ALLOWANCES = [
    Allowance("filter_taps", "global", 1.65, lambda call: True,
              "the time of a position stands first in its features, which are E apart"),
    Allowance("sine_layer|filter_taps", "global", 1.55, lambda call: call.dtype == "bfloat16",
              "eight terms of a row, half types, are half a sector"),
    Allowance("sine_layer", "global", 1.4, lambda call: call.features % 8 != 0,
              "rows of an odd number of features begin anywhere in a sector"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before terms are multiplied", TILE,
             "    __syncthreads();  // these terms are there, and the ones before are read\n", ""),
    Mutation("missing barrier", "before sums take the place of terms", TILE,
             "  __syncthreads();  // the last terms are read\n", ""),
    Mutation("missing barrier", "before sums are read", TILE,
             "  __syncthreads();  // all sums are there\n", ""),
    Mutation("missing barrier", "before a gradient is turned", KERNELS,
             "  __syncthreads();  // the tile is there\n", ""),
    Mutation("missing guard", "rows past the last", TILE,
             "if (row_of(k) < rows_left && term_of(k) < terms_left)", "if (term_of(k) < terms_left)"),
    Mutation("missing guard", "terms past the last", TILE,
             "if (row_of(k) < rows_left && term_of(k) < terms_left)", "if (row_of(k) < rows_left)"),
    Mutation("missing guard", "columns past the last", KERNELS,
             "exists(column < tiles.columns)", "exists(true)"),
    Mutation("missing guard", "positions of a layer past the last", KERNELS,
             "    if (row >= tile.rows) return;\n", ""),
    Mutation("missing guard", "channels of a gradient past the last", KERNELS,
             "  if (channel + lane >= w.channels) return;\n", ""),
    Mutation("missing guard", "parameters past the last", KERNELS, "  if (at >= p.count()) return;\n", ""),
    Mutation("off by one", "the terms after the first eight", TILE,
             "next = first + kTerms; next < end", "next = first + kTerms; next + 1 < end"),
    Mutation("off by one", "where a cosine changes its sign", SINES, "(quarter + 1) & 2", "quarter & 2"),
    Mutation("wrong index", "one buffer for all terms", TILE,
             "first += kTerms, turn ^= 1", "first += kTerms"),
    Mutation("wrong index", "a thread's second piece of rows", TILE,
             "i / kWidth * kWidth * kSide + down", "i / kWidth * kWidth + down"),
    Mutation("wrong index", "the times of the first positions for all", KERNELS,
             "from(features_, first * features_.position)", "from(features_, 0 * first)"),
    Mutation("wrong index", "the first inner layer for all", KERNELS,
             "from(inner_.weight, (m - 1) * inner_.weight.batch)", "inner_.weight"),
    Mutation("wrong index", "the first inner bias for all", KERNELS,
             "from(inner_.bias, (m - 1) * inner_.bias.batch)", "inner_.bias"),
    Mutation("wrong index", "inputs of the layer before", KERNELS,
             "right = w.of(w.sines + m * w.layer, p.order);", "right = w.of(w.sines, p.order);"),
    Mutation("wrong stride", "weights taken for contiguous", KERNELS,
             "{of.weight.data, of.weight.dtype, of.weight.channel, of.weight.position, order}",
             "{of.weight.data, of.weight.dtype, terms, 1, order}"),
    Mutation("wrong sum", "the last of a few positions only", KERNELS,
             "to = w.adds ? to + sum : sum;", "to = sum;"),
    Mutation("wrong sum", "what was there is added to", KERNELS,
             "w.adds = first > 0;", "w.adds = true;"),
    Mutation("wrong sum", "a part too few", KERNELS, "part < t.parts; ++part", "part + 1 < t.parts; ++part"),
    Mutation("wrong factor", "an angle's gradient without the cosine", KERNELS,
             "tile.column] *= shared", "tile.column] = shared"),
    Mutation("wrong factor", "a window that grows", KERNELS,
             "exp(-rate * time)", "exp(rate * time)"),
    Mutation("wrong factor", "a gradient without its window", KERNELS,
             "tile[lane][i] * exp(-", "tile[lane][i] * exp(R(0) * -"),
    Mutation("wrong range", "angles of any size in float32", SINES,
             "fabsf(angle) < 32768.f", "fabsf(angle) < 1e30f"),
    Mutation("too little workspace", "one layer's sines for all", KERNELS,
             "sines(workspace.take<R>((of.n_.inner + 1) * of.layer()))",
             "sines(workspace.take<R>(of.layer()))"),
    Mutation("too little workspace", "of a part for all", KERNELS,
             "take<R>(of.parts() * of.parameters().count())", "take<R>(of.parameters().count())"),
    Mutation("wrong size", "a part that is not there", KERNELS,
             "return quotient_up(positions_, part_length());",
             "return quotient_up(positions_, part_length()) + 1;"),
]  # fmt: skip
