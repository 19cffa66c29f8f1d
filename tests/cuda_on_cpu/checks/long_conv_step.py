"""What long_conv_step's CUDA kernels are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..device import Device
from . import Allowance, Mutation

KERNELS = "long_conv_step.cu"
ALSO = ("fft_conv",)  # which makes the wide squares


@dataclass(frozen=True)
class Decoded:
    """A sample of the contract, in one dtype."""

    sample: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.sample}-{self.dtype}"

    def _made(self) -> tuple[Any, dict[str, Any]]:
        import contract
        import test_long_conv_step
        import torch

        sample = test_long_conv_step.named(self.sample)
        return sample, contract.detached(sample.make(getattr(torch, self.dtype), "cpu"))

    def run(self, device: Device) -> dict[str, np.ndarray]:
        from ..long_conv_step import long_conv_step

        sample, tensors = self._made()
        (y,) = long_conv_step(device, tensors, sample.options)
        return {"y": y.double().numpy()}

    def expected(self) -> dict[str, np.ndarray]:
        return {}  # the contract's check compares with several references

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        import test_long_conv_step
        import torch

        sample, tensors = self._made()
        y = torch.from_numpy(results["y"]).to(getattr(torch, self.dtype))
        try:
            test_long_conv_step.check(sample, tensors, y)
        except AssertionError as error:
            return [str(error).splitlines()[0]]
        return []


# Between them every line: tokens alone and together, both kinds of squares, cut and not, every dtype.
CALLS = [
    *((Decoded(name, "float32"), 90) for name in
      ("one-block", "squares", "pieces", "one-call", "few-taps", "samples-in-one-tile", "strided",
       "transforms", "transforms-per-sample")),
    *((Decoded("one-call", dtype), 90) for dtype in ("float64", "bfloat16", "float16")),
    (Decoded("transforms", "float64"), 90),
]  # fmt: skip

ACCESSES = [
    *(Decoded("whole-tiles", dtype) for dtype in ("float32", "float64", "bfloat16")),
    Decoded("transforms-of-whole-tiles", "float32"),
]

ALLOWANCES = [
    Allowance("convolve", "global", 2.2, lambda call: "transforms" in str(call),
              "16 rows of taps to a block, two of each at a time, and a square's begin at tap 1"),
]  # fmt: skip

MUTATIONS = [
    Mutation("missing barrier", "before a token's sums are read", KERNELS,
             "    shared[warp][lane] = sum;\n    __syncthreads();", "    shared[warp][lane] = sum;"),
    Mutation("missing barrier", "before the next token", KERNELS,
             "if (token + 1 < first + count) __syncthreads();", ""),
    Mutation("missing barrier", "before inputs and taps are read", KERNELS,
             "    __syncthreads();\n    if (place.exists) {\n      // Sum i",
             "    if (place.exists) {\n      // Sum i"),
    Mutation("missing barrier", "before the next inputs and taps", KERNELS,
             "      for (int i = 0; i < kEach; ++i) totals[i] += sums[i];\n    }\n    __syncthreads();",
             "      for (int i = 0; i < kEach; ++i) totals[i] += sums[i];\n    }"),
    Mutation("missing guard", "channels past the last one", KERNELS,
             "channel, channel < n.filter.channels};", "channel, true};"),
    Mutation("missing guard", "an absent gate", KERNELS, "if (pre_gate.data)\n          pre =", "pre ="),
    Mutation("missing guard", "taps past those of the rows", KERNELS,
             "if (tap + lane < size.row_taps()) rows[", "rows["),
    Mutation("off by one", "the longest lag of a token", KERNELS, "lag <= most)", "lag < most)"),
    Mutation("off by one", "the first tap of a tile", KERNELS,
             "ahead - behind - (kBlock - 1) + i);", "ahead - behind - kBlock + i);"),
    Mutation("off by one", "tap 0 in a transformed square", KERNELS,
             "n.filter.first_taps() * pitch + 1, dtype", "n.filter.first_taps() * pitch, dtype"),
    Mutation("wrong index", "channels of a sample's own filter", KERNELS,
             "(channel - sample * n.channels) * a.channel", "channel * a.channel"),
    Mutation("wrong index", "taps that do not slide", KERNELS,
             "near[i] = taps[kBlock - kEach + kEach * warp - first + i][lane];",
             "near[i] = taps[kBlock - kEach + kEach * warp + i][lane];"),
    Mutation("wrong index", "a warp's sums", KERNELS,
             "*s.at(place, ahead + kEach * warp + i) += totals[i];", "*s.at(place, ahead + i) += totals[i];"),
    Mutation("wrong index", "the first part of a transformed square for all", KERNELS,
             "made[(place.batch * square.width + part * kBlock + i)",
             "made[(place.batch * square.width + i)"),
    Mutation("dropped sum", "the inputs of a square before the last", KERNELS,
             "totals[i] += sums[i];", "totals[i] = sums[i];"),
    Mutation("dropped sum", "an input that is not kept", KERNELS, "      *s.at(place, position) = u;\n", ""),
    Mutation("wrong size", "squares wider than there are taps", KERNELS,
             "width = std::min(here & -here, n.filter.widest);", "width = here & -here;"),
    Mutation("wrong size", "a square past the last row", KERNELS,
             "std::min(width, n.rows - here) / kBlock", "width / kBlock"),
    Mutation("too little workspace", "for one sample of several", KERNELS,
             "take<R>(size.batch * width", "take<R>(width"),
]  # fmt: skip
