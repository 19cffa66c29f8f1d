"""Filters scaled once, so that a convolution keeps the size of what goes through it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Calibrated(nn.Module):
    """A convolution that rescales its filters in its first forward in training mode, and remembers.

    That forward itself, and its backward, use the weights as they were. The buffer has the spelling of the
    published checkpoints.
    """

    callibrated: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("callibrated", torch.tensor(False))
        self._calibrated = False  # the same, where it can be asked without waiting for a GPU

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def calibrate(self, *steps: tuple[nn.Linear, Tensor, Tensor]) -> None:
        """Make each layer's filters larger by std(before) / std(after), where that is a number."""
        for layer, before, after in steps:
            scale = before.std() / after.std()
            scale = torch.where(scale.isfinite() & (scale > 0), scale, 1)
            # New storage: what autograd has saved stays as it was.
            layer.weight.data = layer.weight * scale.to(layer.weight.dtype)
        self.callibrated = torch.ones_like(self.callibrated)
        self._calibrated = True

    @property
    def to_be_calibrated(self) -> bool:
        return self.training and not self._calibrated

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._calibrated = bool(self.callibrated)
