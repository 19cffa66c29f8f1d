"""A long convolution with a filter of its own, or one that it is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops.check import LAYOUTS, MODES, number_of, require
from ..ops.fft_conv import fft_conv
from .filter import FILTERS, check_filter
from .long_conv_decoder import LongConvDecoder


class LongConv(nn.Module):
    """y = post_gate ⊙ (filter ∗ u + skip ⊙ u), u = pre_gate ⊙ x: :func:`equiconv.fft_conv` with parameters.

    Args:
        channels: D.
        max_length: the longest sequence; needed where the module has a filter.
        filter: "implicit" or "explicit", for an :class:`ImplicitFilter` or :class:`ExplicitFilter`, which is
            `self.filter` then; or None: the module has none, and each call is given one.
        mode: "causal", "bidirectional" or "circular". Bidirectional filters have taps at all lags
            -(L - 1) … L - 1.
        skip: whether there is one; it starts as normal numbers.
        layout: "bld" or "bdl", of x.
        options: of the filter, such as `order` and `emb_dim`.
    """

    def __init__(
        self,
        channels: int,
        max_length: int | None = None,
        *,
        filter: str | None = "implicit",
        mode: str = "causal",
        skip: bool = True,
        layout: str = "bld",
        **options: Any,
    ) -> None:
        super().__init__()
        number_of(_OP, "mode", mode, MODES)
        number_of(_OP, "layout", layout, LAYOUTS)
        self.mode = mode
        self.layout = layout
        self.filter: nn.Module | None = None
        check_filter(_OP, filter, max_length, options)
        if filter is not None:
            assert max_length is not None
            self.filter = FILTERS[filter](channels, max_length, two_sided=mode == "bidirectional", **options)
        self.skip = nn.Parameter(torch.randn(channels)) if skip else None

    def forward(
        self,
        x: Tensor,
        *,
        filter: Tensor | None = None,
        pre_gate: Tensor | None = None,
        post_gate: Tensor | None = None,
    ) -> Tensor:
        """x and gates: (B, L, D), or (B, D, L) with layout "bdl". Returns the shape of x.

        filter: (D, Lf) or (B, D, Lf), where the module has none of its own.
        """
        require(x.dim() == 3, lambda: f"{_OP}: x must have three axes, but has shape {tuple(x.shape)}")
        return fft_conv(
            x,
            self._filter(x.shape[1 if self.layout == "bld" else 2], filter),
            pre_gate=pre_gate,
            post_gate=post_gate,
            skip=self.skip,
            mode=self.mode,
            layout=self.layout,
        )

    def decoder(
        self, batch: int, *, filter: Tensor | None = None, max_length: int | None = None
    ) -> LongConvDecoder:
        """What continues sequences token by token; for causal convolutions. Its filter is that of now.

        max_length: of the sequences; None: the filter's own, or how many taps the given one has.
        """
        require(
            self.mode == "causal",
            lambda: f"{_OP}: mode must be causal where tokens come one by one, but is {self.mode}",
        )
        require(
            max_length is None or max_length >= 1,
            lambda: f"{_OP}: max_length must be at least 1, but is {max_length}",
        )
        if self.filter is not None and max_length is None:
            max_length = int(self.filter.max_length)  # type: ignore[arg-type]
        taps = self._filter(0 if max_length is None else max_length, filter)
        return LongConvDecoder(taps, skip=self.skip, batch=batch, max_length=max_length)

    def _filter(self, length: int, given: Tensor | None) -> Tensor:
        require(
            (self.filter is None) == (given is not None),
            lambda: (
                f"{_OP}: filter must be {'given' if self.filter is None else 'absent'} where the module has "
                f"{'none' if self.filter is None else 'one'}, but is {'absent' if given is None else 'there'}"
            ),
        )
        return self.filter(length) if given is None else given  # type: ignore[misc]


_OP = "LongConv"
