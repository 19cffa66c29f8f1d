"""PONITA as the contestants have it: in plain PyTorch, as published, and with equiconv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import equiconv

from ..reference import ponita as reference
from .fit import Schedule

CONTESTANTS: dict[str, Callable[..., nn.Module]] = {"torch": reference.Ponita, "equiconv": equiconv.nn.Ponita}


@dataclass(frozen=True, kw_only=True)
class PonitaSettings(Schedule):
    channels: int = 32
    functions: int = 64
    orientations: int = 16
    layers: int = 4


def make(contestant: str, settings: PonitaSettings, **more: Any) -> nn.Module:
    """All contestants start from the same parameters."""
    sizes: dict[str, Any] = {
        "hidden_dim": settings.channels,
        "num_layers": settings.layers,
        "num_ori": settings.orientations,
        "basis_dim": settings.functions,
        **more,
    }
    torch.manual_seed(settings.seed)
    start = reference.Ponita(**sizes)
    if contestant == "torch":
        return start
    model = CONTESTANTS[contestant](**sizes)
    model.load_state_dict(start.state_dict())
    return model
