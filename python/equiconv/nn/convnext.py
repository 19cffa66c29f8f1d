"""The ConvNeXt block: a convolution, then a network at every point by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.gelu_linear import gelu_linear
from .conv import FiberBundleConv, PointCloudConv


class ConvNext(nn.Module):
    """x + layer_scale ⊙ Linear(GELU(Linear(LayerNorm(conv(x))))).

    Args:
        channels: C, of x and of what `conv` gives.
        conv: a :class:`FiberBundleConv` or :class:`PointCloudConv`.
        layer_scale: what the parameter of this name starts from; None: there is none.
        widening_factor: the width between the two layers, in units of C.

    Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv:2201.03545.
    """

    def __init__(
        self,
        channels: int,
        conv: FiberBundleConv | PointCloudConv,
        *,
        layer_scale: float | None = 1e-6,
        widening_factor: int = 4,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.LayerNorm(channels)
        self.linear_1 = nn.Linear(channels, widening_factor * channels)
        self.linear_2 = nn.Linear(widening_factor * channels, channels)
        self.layer_scale = (
            None if layer_scale is None else nn.Parameter(torch.full((channels,), float(layer_scale)))
        )

    def forward(self, x: Tensor, *given: object) -> Tensor:
        """x: (N, O, C) or (N, C); `given`: what else `conv` takes. Returns the shape of x."""
        y = self.linear_1(self.norm(self.conv(x, *given)))
        y = gelu_linear(y, self.linear_2.weight, self.linear_2.bias)
        return x + (y if self.layer_scale is None else self.layer_scale * y)
