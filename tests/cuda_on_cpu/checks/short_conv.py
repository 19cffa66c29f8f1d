"""What short_conv's CUDA kernels are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..device import Device
from . import Allowance, Mutation, Sampled

KERNELS, TILES = "short_conv.cu", "short_conv_tiles.cuh"


class Form(Sampled):
    """A sample of the contract of one of short_conv's forms: its op."""

    def __str__(self) -> str:
        return f"{self.op.removeprefix('short_conv_')}-{super().__str__()}"


@dataclass(frozen=True)
class Step:
    """One position, after a prompt."""

    taps: int
    activation: str | None
    dtype: str

    def __str__(self) -> str:
        return f"step-{self.taps}-{self.activation}-{self.dtype}"

    def _made(self) -> dict[str, Any]:
        import torch

        generator = torch.Generator().manual_seed(0)
        shapes = {"x": (3, 40), "state": (3, 40, self.taps - 1), "filter": (40, self.taps), "bias": (40,)}
        made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        return {name: tensor.to(getattr(torch, self.dtype)) for name, tensor in made.items()}

    def run(self, device: Device) -> dict[str, np.ndarray]:
        from ..short_conv import short_conv_step

        y, state = short_conv_step(device, **self._made(), activation=self.activation)
        return {"y": y.double().numpy(), "next": state.double().numpy()}

    def expected(self) -> dict[str, np.ndarray]:
        from equiconv.reference.short_conv import short_conv_step

        given = {name: tensor.double() for name, tensor in self._made().items()}
        y, state = short_conv_step(**given, activation=self.activation)
        return {"y": y.numpy(), "next": state.numpy()}

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        allowed = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}.get(self.dtype, 1e-12)
        return [name for name in results if not np.allclose(results[name], expected[name], atol=allowed)]


def calls(op: str, *samples: str, dtype: str = "float32") -> list[tuple[Any, int]]:
    return [(Form(op, sample, dtype), 90) for sample in samples]


# Between them every line: along lanes and along positions, 16 bytes at a time and not, every edge.
CALLS = [
    *calls("short_conv", "causal", "centered", "circular", "strided", "wider-circular", "one-position",
           "columns", "columns-odd", "rows", "rows-odd", "rows-long-circular", "float32-weights"),
    *calls("short_conv", "columns", "rows", dtype="bfloat16"),
    *calls("short_conv", "columns", "rows-odd", dtype="float64"),
    *calls("short_conv", "columns-long", dtype="float16"),
    *calls("short_conv_activated", "columns", "rows-odd", "columns-long", "rows"),
    *calls("short_conv_gated", "columns", "columns-long", "rows-circular", "strided"),
    *calls("short_conv_gated", "columns", dtype="float64"),
    (Step(4, None, "float32"), 90), (Step(2, "silu", "float32"), 90),
    (Step(1, "silu", "bfloat16"), 90), (Step(16, "gelu", "float64"), 90),
]  # fmt: skip

MUTATIONS = [
    Mutation("sums", "taps from the other end", TILES,
             "const R f = taps[(reversed ? count - 1 - j : j) * kLanesOfTile];",
             "const R f = taps[j * kLanesOfTile];"),
    Mutation("edges", "mirrored before the beginning", TILES,
             "while (position < 0) position += n.length;", "if (position < 0) position = -position;"),
    Mutation("edges", "the first position for what is outside", TILES,
             "return position < n.length ? position : std::int64_t{-1};",
             "return position >= 0 && position < n.length ? position : std::int64_t{0};"),
    Mutation("sums", "no bias", KERNELS,
             "const R start = f[n.taps * kLanesOfTile];\n#pragma unroll\n      for",
             "const R start = R(0);\n#pragma unroll\n      for"),
    Mutation("barriers", "sums before the tile is there", KERNELS,
             "    taps_of = group;\n    __syncthreads();\n", "    taps_of = group;\n"),
    Mutation("barriers", "results over what others still read", KERNELS,
             "    __syncthreads();\n    // 3. results, by way of the first tiles\n",
             "    // 3. results, by way of the first tiles\n"),
    Mutation("sums", "gradients past the end", KERNELS, "own[k] = at + k < count ? g[", "own[k] = true ? g["),
    Mutation("sums", "a run's last tile is left out", KERNELS,
             "tile < tiles.count * (run + 1) / runs; ++tile)",
             "tile + 1 < tiles.count * (run + 1) / runs; ++tile)"),
    Mutation("sums", "the streams' gradients exchanged", KERNELS,
             "grad[kTileSize] = of_product * sums[2][k];", "grad[kTileSize] = of_product * sums[1][k];"),
    Mutation("state", "the newest position is lost", KERNELS,
             "if (kept) store_one(x, a.next,", "if (kept > 1) store_one(x, a.next,"),
]  # fmt: skip

# ---- accesses to memory -------------------------------------------------------------------------------

ACCESSES = [
    *(call for op, samples in (("short_conv", ("columns", "rows")), ("short_conv_activated", ("columns",)),
                               ("short_conv_gated", ("columns", "rows")))
      for call, _ in calls(op, *samples)),
    Step(4, None, "float32"),
]  # fmt: skip

ALLOWANCES = [
    Allowance("short_conv", "global", 4.4, lambda call: True,
              "taps lie as (D, W), states as (B, D, W - 1), four from thread to thread, once a block"),
    Allowance("short_conv", "shared", 2.8, lambda call: "rows" in str(call),
              "16 bytes along the sequence are four numbers of one lane: threads meet by twos in the banks"),
]  # fmt: skip
