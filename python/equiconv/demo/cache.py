"""What takes time to simulate, kept in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equiconv"


def kept(name: str, make: Callable[[], list[Tensor]]) -> list[Tensor]:
    """The tensors of this name: from the cache, or made and put there."""
    path = folder() / f"{name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        torch.save(make(), unfinished)
        unfinished.replace(path)  # at once, so that no other process ever reads half a file
    tensors: list[Tensor] = torch.load(path, weights_only=True)
    return tensors
