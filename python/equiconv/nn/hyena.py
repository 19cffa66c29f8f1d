"""The Hyena operator, causal, and its state for decoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops.check import require
from ..ops.short_conv import short_conv_gated
from .long_conv import LongConv
from .short_conv import ShortConv


class HyenaOperator(nn.Module):
    """(B, L, D) to (B, L, D), causal, of order 2:

        z = in_linear(x)                                       (B, L, 3D)
        x0, x1, v = split(short_conv(z))
        y = out_linear(x0 ⊙ (filter ∗ (x1 ⊙ v) + skip ⊙ x1 ⊙ v))

    Args:
        channels: D.
        max_length: the longest sequence; needed where the module has a filter.
        width: W, taps of the short convolution.
        filter, options: as of :class:`LongConv`, but for its mode, which is "causal", and its layout, "bld".

    Poli et al., Hyena Hierarchy, ICML 2023, arXiv:2302.10866.
    """

    def __init__(
        self,
        channels: int,
        max_length: int | None = None,
        *,
        width: int = 3,
        filter: str | None = "implicit",
        **options: Any,
    ) -> None:
        super().__init__()
        for name, only in (("mode", "causal"), ("layout", "bld")):
            require(
                options.get(name, only) == only,
                lambda name=name, only=only: (  # type: ignore[misc]
                    f"HyenaOperator: {name} must be {only}, but is {options[name]}"
                ),
            )
        self.in_linear = nn.Linear(channels, 3 * channels)
        self.short_conv = ShortConv(3 * channels, width)
        self.long_conv = LongConv(channels, max_length, filter=filter, **options)
        self.out_linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor, *, filter: Tensor | None = None) -> Tensor:
        """x: (B, L, D). filter: (D, Lf) or (B, D, Lf), where the module has none. Returns the shape of x."""
        short, channels = self.short_conv, self.in_linear.in_features
        require(
            x.dim() == 3 and x.shape[2] == channels,
            lambda: f"HyenaOperator: x must be (B, L, {channels}), but has shape {tuple(x.shape)}",
        )
        x0, u = short_conv_gated(self.in_linear(x), short.filter, bias=short.bias, layout="bld")
        y: Tensor = self.out_linear(self.long_conv(u, post_gate=x0, filter=filter))
        return y

    def decoder(
        self, batch: int, *, filter: Tensor | None = None, max_length: int | None = None
    ) -> HyenaDecoder:
        """What continues sequences token by token, with the filter of now; as of :class:`LongConv`."""
        return HyenaDecoder(self, batch, filter, max_length)


class HyenaDecoder:
    """The state of a :class:`HyenaOperator`: given the next tokens, (B, T, D), it returns their result."""

    def __init__(
        self, operator: HyenaOperator, batch: int, filter: Tensor | None, max_length: int | None
    ) -> None:
        self.operator = operator
        self.long_conv = operator.long_conv.decoder(batch, filter=filter, max_length=max_length)
        streams, width = operator.short_conv.filter.shape
        self.before = operator.short_conv.filter.new_zeros(batch, width - 1, streams)

    @property
    def position(self) -> int:
        """How many tokens there have been."""
        return self.long_conv.position

    def reset(self) -> None:
        """Begin new sequences with the same filter."""
        self.long_conv.reset()
        self.before = torch.zeros_like(self.before)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        batch, channels = len(self.before), self.operator.in_linear.in_features
        require(
            x.dim() == 3 and (x.shape[0], x.shape[2]) == (batch, channels),
            lambda: (
                f"HyenaDecoder: x must have shape ({batch}, T, {channels}), but has shape {tuple(x.shape)}"
            ),
        )
        operator, kept = self.operator, self.before.shape[1]
        z = operator.in_linear(x)
        z = torch.cat([self.before.to(z.dtype), z], 1)
        short = operator.short_conv
        x0, u = (s[:, kept:] for s in short_conv_gated(z, short.filter, bias=short.bias, layout="bld"))
        y: Tensor = operator.out_linear(self.long_conv(u, post_gate=x0))
        self.before = z[:, z.shape[1] - kept :].clone()
        return y
