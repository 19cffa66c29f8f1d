"""What pair_moments' CUDA kernels are checked with. Calls are the contract's samples."""

from __future__ import annotations

from . import Allowance, Mutation, Sampled

CUDA, TILE = "pair_moments.cu", "pair_moments_tile.cuh"

ACCESSES = [
    *(Sampled("pair_moments", "tiles", dtype) for dtype in ("float32", "float64", "bfloat16", "float16")),
    Sampled("pair_moments", "shared-wide", "float32"),
]

ALLOWANCES = [
    Allowance("moments|pair_products|sum_messages", "global", 1.3, lambda call: True,
              "what a group has of the lists of pairs begins anywhere in a sector"),
]  # fmt: skip

MUTATIONS: list[Mutation] = []
