"""The short convolution that models put before their long one, as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.check import LAYOUTS, number_of, one_of, require
from ..ops.short_conv import short_conv
from ..ops.short_conv_checks import ACTIVATIONS, SHORT_MODES

__all__ = ["ShortConv"]


class ShortConv(nn.Module):
    """Depthwise convolution with a few taps: see :func:`equiconv.short_conv`.

    Args:
        channels: D.
        width: W, the number of taps, 1 to 16.
        bias: whether there is one.
        activation: None, "silu" or "gelu".
        mode: "causal", "centered", "circular" or "circular_centered".
        layout: "bld" or "bdl", of the input.

    The parameters are `filter`, (D, W), and `bias`, (D,), drawn as those of
    ``torch.nn.Conv1d(D, D, W, groups=D)``: uniform within 1/√W. `from_conv1d` takes a trained one over.
    """

    def __init__(
        self,
        channels: int,
        width: int = 3,
        *,
        bias: bool = True,
        activation: str | None = None,
        mode: str = "causal",
        layout: str = "bld",
    ) -> None:
        super().__init__()
        require(1 <= width <= 16, lambda: f"ShortConv: width must be 1 to 16, but is {width}")
        require(
            activation is None or activation in ACTIVATIONS,
            lambda: f"ShortConv: activation must be {one_of([*ACTIVATIONS, 'None'])}, but is {activation}",
        )
        require(mode in SHORT_MODES, lambda: f"ShortConv: mode must be {one_of(SHORT_MODES)}, but is {mode}")
        number_of("ShortConv", "layout", layout, LAYOUTS)
        self.activation, self.mode, self.layout = activation, mode, layout
        bound = width**-0.5
        self.filter = nn.Parameter(torch.empty(channels, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    @classmethod
    def from_conv1d(
        cls,
        conv: nn.Conv1d,
        *,
        activation: str | None = None,
        mode: str = "causal",
        layout: str = "bld",
    ) -> ShortConv:
        """The same convolution as that of a depthwise ``torch.nn.Conv1d`` with copies of its weights.

        Conv1d correlates, so the taps come in the opposite order: ``filter = conv.weight[:, 0].flip(-1)``.
        Its padding is for the caller to name: a padding of W - 1 whose result is cut to the first L positions
        is "causal", ``padding="same"`` or, for odd W, W // 2 is "centered", and either of the latter with
        ``padding_mode="circular"`` is "circular_centered".
        """
        channels, taps = conv.out_channels, conv.kernel_size[0]
        require(
            conv.groups == conv.in_channels == channels and conv.stride == (1,) and conv.dilation == (1,),
            lambda: (
                "ShortConv: conv must have as many groups as channels, stride 1 and dilation 1, but is "
                f"{conv}"
            ),
        )
        layer = cls(
            channels,
            taps,
            bias=conv.bias is not None,
            activation=activation,
            mode=mode,
            layout=layout,
        ).to(conv.weight)
        with torch.no_grad():
            layer.filter.copy_(conv.weight[:, 0].flip(-1))
            if layer.bias is not None:
                assert conv.bias is not None
                layer.bias.copy_(conv.bias)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, D), or (B, D, L) with layout "bdl". Returns the same shape."""
        return short_conv(
            x,
            self.filter,
            bias=self.bias,
            activation=self.activation,
            mode=self.mode,
            layout=self.layout,
        )

    def extra_repr(self) -> str:
        channels, width = self.filter.shape
        return (
            f"{channels}, width={width}, bias={self.bias is not None}, activation={self.activation}, "
            f"mode={self.mode}, layout={self.layout}"
        )
