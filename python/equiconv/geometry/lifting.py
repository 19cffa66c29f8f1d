"""From points to points with orientations, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def lift(scalars: Tensor | None, vectors: Tensor | None, grid: Tensor) -> Tensor:
    """(N, O, S + V): features of points as functions on the grid. Scalars repeat, a vector v gives v·o.

    scalars: (N, S). vectors: (N, V, n). grid: (O, n).
    """
    parts = []
    if scalars is not None:
        parts.append(scalars[:, None].expand(-1, grid.shape[0], -1))
    if vectors is not None:
        parts.append((vectors @ grid.T).mT)
    return torch.cat(parts, -1)


def project(values: Tensor, grid: Tensor) -> Tensor:
    """(N, O, V) to (N, V, n): the vectors (1/O) Σₒ values[o] o."""
    return (values.mT @ grid) / grid.shape[0]
