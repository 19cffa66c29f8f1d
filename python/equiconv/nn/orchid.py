"""Orchid: mixing positions by a circular convolution whose filter is made from the data, and its block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops.check import one_of, require
from ..ops.conditioned_conv import conditioned_conv
from ..ops.fft_conv import fft_conv
from ..ops.orchid_mix import orchid_mix
from ..ops.short_conv import short_conv_gated
from .filter import FILTERS, check_filter
from .long_conv import LongConv
from .short_conv import ShortConv

TYPES = ("I", "II")
PADDINGS = ("circular", "zeros")


class Orchid(nn.Module):
    r"""(B, L, D) to (B, L, D), for any L up to `max_length`:

        z = in_linear(x)                                         (B, L, 3D)
        x0, x1, v = split(short_conv(z))
        y = x0 ⊙ (irfft((rfft(h0) + H) ⊙ rfft(u)) + skip ⊙ u)     u = x1 ⊙ v
        out = out_linear(y + residual(x))

    where h0 is a static filter and H is made from w = z[..., 2D:], the third stream before its convolution,
    by short convolutions along time (S_t, S_k, S_q) and along frequency (S):

    .. math:: H = S(|\mathrm{rfft}(S_t(w))|) \quad \text{(Type I)}, \qquad
              H = S(\overline{\mathrm{rfft}(S_k(w))} \odot \mathrm{rfft}(S_q(w))) \quad \text{(Type II)}

    A circular shift of x shifts the result, exactly but for rounding, for any shift and any L. All positions
    see all others: it is no causal model's.

    Args:
        channels: D.
        max_length: the longest sequence; needed where there is a static or residual filter.
        conditioning: "I", "II", or None: no H, the filter is h0 alone.
        width: taps of the short convolutions along time, 1 to 16.
        frequency_width: taps of S, 1 to 16.
        filter: "implicit" or "explicit", what h0 is, or None: there is none.
        padding: of the short convolutions along time: "circular"; or "zeros" (causal for the streams,
            centred for the conditioning), with which the equivariance holds but for the ends.
        norm: whether a LayerNorm over channels follows each short convolution of the conditioning along time.
        residual: whether there is a long convolution of x itself, circular, with its own filter and skip.
        mode: "circular"; nothing else can be asked for, nor `causal`.
        options: of the filters, such as `order` and `emb_dim`.

    S starts as a Conv1d does and is divided by √L (Type I) or L (Type II) where it is used, as if the
    transforms of w were unitary: so H has the same size whatever L.

    Karami and Ghodsi, Orchid, NeurIPS 2024, arXiv:2402.18508.
    """

    def __init__(
        self,
        channels: int,
        max_length: int | None = None,
        *,
        conditioning: str | None = "II",
        width: int = 3,
        frequency_width: int = 3,
        filter: str | None = "implicit",
        padding: str = "circular",
        norm: bool = False,
        residual: bool = False,
        mode: str = "circular",
        **options: Any,
    ) -> None:
        super().__init__()
        mode = "causal" if options.pop("causal", False) else mode
        _check(max_length, conditioning, frequency_width, filter, padding, residual, mode)
        check_filter(_OP, "implicit" if residual and filter is None else filter, max_length, options)
        self.conditioning = conditioning
        along_time, of_condition = (
            ("circular", "circular_centered") if padding == "circular" else ("causal", "centered")
        )
        self.in_linear = nn.Linear(channels, 3 * channels)
        self.short_conv = ShortConv(3 * channels, width, mode=along_time)
        self.query: nn.Module | None = None
        self.key: nn.Module | None = None
        if conditioning is not None:
            self.query = _condition(channels, width, of_condition, norm)
            self.frequency_filter = nn.Parameter(torch.empty(channels, frequency_width))
            self.frequency_bias = nn.Parameter(torch.empty(channels))
            for parameter in (self.frequency_filter, self.frequency_bias):
                nn.init.uniform_(parameter, -(frequency_width**-0.5), frequency_width**-0.5)
        if conditioning == "II":
            self.key = _condition(channels, width, of_condition, norm)
        self.filter: nn.Module | None = None
        if filter is not None:
            self.filter = FILTERS[filter](channels, max_length, **options)
        self.skip = nn.Parameter(torch.randn(channels))
        self.residual = LongConv(channels, max_length, mode="circular", **options) if residual else None
        self.out_linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, D). Returns the shape of x."""
        channels = self.in_linear.in_features
        require(
            x.dim() == 3 and x.shape[2] == channels,
            lambda: f"{_OP}: x must be (B, L, {channels}), but has shape {tuple(x.shape)}",
        )
        static = self._static(x.shape[1])  # before there is z: what its network needs is large for a moment
        y = self._mix(self.in_linear(x), static)
        if self.residual is not None:
            y = y + self.residual(x)
        out: Tensor = self.out_linear(y)
        return out

    def mix(self, z: Tensor) -> Tensor:
        """What is between the projections: z, (B, L, 3D), to y, (B, L, D)."""
        return self._mix(z, self._static(z.shape[1]))

    def _static(self, length: int) -> Tensor | None:
        return None if self.filter is None else self.filter(length)

    def _mix(self, z: Tensor, static: Tensor | None) -> Tensor:
        short, length = self.short_conv, z.shape[1]
        if self.query is None:
            assert static is not None
            x0, u = short_conv_gated(z, short.filter, bias=short.bias, mode=short.mode, layout="bld")
            return fft_conv(u, static, post_gate=x0, skip=self.skip, mode="circular", layout="bld")
        unitary = max(length, 1) ** (-0.5 if self.key is None else -1.0)
        weights = {
            "frequency_filter": self.frequency_filter * unitary,
            "frequency_bias": self.frequency_bias,
            "filter": static,
            "skip": self.skip,
        }
        if isinstance(self.query, ShortConv):
            key = self.key
            assert key is None or isinstance(key, ShortConv)
            return orchid_mix(
                z,
                short.filter,
                self.query.filter,
                None if key is None else key.filter,
                short_bias=short.bias,
                query_bias=self.query.bias,
                key_bias=None if key is None else key.bias,
                padding="circular" if short.mode == "circular" else "zeros",
                **weights,
            )
        x0, u = short_conv_gated(z, short.filter, bias=short.bias, mode=short.mode, layout="bld")
        w = z[..., 2 * u.shape[2] :]
        key = None if self.key is None else self.key(w)
        return conditioned_conv(u, self.query(w), key, post_gate=x0, layout="bld", **weights)


class OrchidBlock(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)): where a transformer has its block.

    Args:
        channels: D.
        max_length, options: of the :class:`Orchid` that mixes.
        mlp: a module for each position, from D to D features, such as a GatedLinearUnit and a Linear; None:
            Linear, GELU, Linear, 4 D wide between.
        dropout: of both branches.
    """

    def __init__(
        self,
        channels: int,
        max_length: int | None = None,
        *,
        mlp: nn.Module | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(channels)
        self.mixer = Orchid(channels, max_length, **options)
        self.mlp_norm = nn.LayerNorm(channels)
        if mlp is None:
            mlp = nn.Sequential(
                nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
            )
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, D). Returns the shape of x."""
        x = x + self.dropout(self.mixer(self.mixer_norm(x)))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


_OP = "Orchid"


def _condition(channels: int, width: int, mode: str, norm: bool) -> nn.Module:
    conv = ShortConv(channels, width, mode=mode)
    return nn.Sequential(conv, nn.LayerNorm(channels)) if norm else conv


def _check(
    max_length: int | None,
    conditioning: str | None,
    frequency_width: int,
    filter: str | None,
    padding: str,
    residual: bool,
    mode: str,
) -> None:
    require(
        mode == "circular",
        lambda: (
            f"{_OP}: mode must be circular, but is {mode}: its filter is made from the whole sequence, so "
            "every position would see those after it; causal are LongConv and HyenaOperator"
        ),
    )
    require(
        conditioning is None or conditioning in TYPES,
        lambda: f"{_OP}: conditioning must be {one_of([*TYPES, 'None'])}, but is {conditioning}",
    )
    require(
        conditioning is not None or filter is not None,
        lambda: f"{_OP}: filter must be {one_of([*FILTERS])} where conditioning is None, but is None",
    )
    require(padding in PADDINGS, lambda: f"{_OP}: padding must be {one_of([*PADDINGS])}, but is {padding}")
    require(
        1 <= frequency_width <= 16,
        lambda: f"{_OP}: frequency_width must be 1 to 16, but is {frequency_width}",
    )
    require(
        max_length is not None or (filter is None and not residual),
        lambda: f"{_OP}: max_length must be given where there is a filter, but is absent",
    )
