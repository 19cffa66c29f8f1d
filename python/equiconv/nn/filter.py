"""Long filters that do not depend on the data: stored tap by tap, or made by a network from tap positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..ops.check import require


class ExplicitFilter(nn.Module):
    """A parameter for each tap.

    Args:
        channels: D.
        max_length: the longest sequence.
        two_sided: whether there are taps at lags -(L - 1) … L - 1 instead of 0 … L - 1.

    Taps start as normal numbers that keep the size of white noise.
    """

    def __init__(self, channels: int, max_length: int, *, two_sided: bool = False) -> None:
        super().__init__()
        _check_length("ExplicitFilter", "max_length", max_length)
        self.max_length = max_length
        self.two_sided = two_sided
        taps = 2 * max_length - 1 if two_sided else max_length
        self.taps = nn.Parameter(torch.randn(channels, taps) / math.sqrt(max_length))

    def forward(self, length: int) -> Tensor:
        """(D, length), or two-sided (D, 2 length - 1): a view, without a copy."""
        _check_length("ExplicitFilter", "length", length, self.max_length)
        first = self.max_length - length if self.two_sided else 0
        taps = max(2 * length - 1, 0) if self.two_sided else length
        return self.taps[:, first : first + taps]


class ImplicitFilter(nn.Module):
    r"""A filter whose taps a small network computes from their positions, times a window that decays.

    Tap i of at most N has the features z = [t, Re e, Im e] with t = i / (N - 1) and

    .. math:: e_j = \exp(-2\pi\mathrm{i}\, f_j\, i / N), \qquad f = \mathrm{linspace}(10^{-4}, n - 1, n),
              \quad n = (\text{emb\_dim} - 1) / 2

    and is, for channel d,

    .. math:: (W_{out} \sin(\omega \odot (W \cdots \sin(\omega \odot (W_{in} z + b_{in})) \cdots + b)))_d
              \cdot e^{-t |\delta_d|}, \qquad
              \delta = \mathrm{linspace}(\ln(0.01) / 1.5, \ln(0.01) / 0.3, D)

    with one learned ω for each feature, the same in all layers. A shorter filter is the beginning of a longer
    one.

    Args:
        channels: D.
        max_length: N, the longest sequence.
        emb_dim: features of a position, odd and at least 3.
        order: width of the network.
        num_inner: how many layers from `order` to `order` features it has.
        omega: what ω starts from.
        two_sided: whether there are taps at lags -(L - 1) … L - 1 instead of 0 … L - 1; those at negative
            lags are D more outputs of the same network, tap i at lag -1 - i.

    Poli et al., Hyena Hierarchy, ICML 2023, arXiv:2302.10866, section 3.3, with the features and the window
    of the published code.
    """

    features: Tensor
    rates: Tensor

    def __init__(
        self,
        channels: int,
        max_length: int,
        *,
        emb_dim: int = 33,
        order: int = 128,
        num_inner: int = 1,
        omega: float = 10.0,
        two_sided: bool = False,
    ) -> None:
        super().__init__()
        op = "ImplicitFilter"
        _check_length(op, "max_length", max_length)
        require(
            emb_dim >= 3 and emb_dim % 2 == 1,
            lambda: f"{op}: emb_dim must be odd and at least 3, but is {emb_dim}",
        )
        self.max_length = max_length
        self.two_sided = two_sided
        bands = (emb_dim - 1) // 2
        t = torch.linspace(0, 1, max_length, dtype=torch.float64)[:, None]
        turns = torch.arange(max_length, dtype=torch.float64)[:, None] / max_length
        angles = 2 * math.pi * turns * torch.linspace(1e-4, bands - 1, bands, dtype=torch.float64)
        features = torch.cat([t, angles.cos(), -angles.sin()], dim=1)
        slowest, fastest = (-math.log(0.01) / part for part in (1.5, 0.3))
        rates = torch.linspace(slowest, fastest, channels, dtype=torch.float64)
        # Not in the state: they follow from the sizes.
        self.register_buffer("features", features.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("rates", rates.to(torch.get_default_dtype()), persistent=False)
        self.input = nn.Linear(emb_dim, order)
        self.inner = nn.ModuleList(nn.Linear(order, order) for _ in range(num_inner))
        self.output = nn.Linear(order, 2 * channels if two_sided else channels, bias=False)
        self.omega = nn.Parameter(torch.full((order,), float(omega)))

    def forward(self, length: int) -> Tensor:
        """(D, length), or two-sided (D, 2 length - 1).

        One-sided it is a transposed view of (length, D), which the ops read as it is.
        """
        _check_length("ImplicitFilter", "length", length, self.max_length)
        features = self.features[:length].to(self.omega.dtype)
        h = features
        for layer in (self.input, *self.inner):
            # ω (W h + b), without passes over all positions for ω
            h = torch.sin(linear(h, self.omega[:, None] * layer.weight, self.omega * layer.bias))
        window = (-features[:, :1] * self.rates).exp_()
        if not self.two_sided:
            filter: Tensor = self.output(h).mul_(window)  # nothing wants the product itself: no second tensor
            return filter.mT
        ahead, behind = (part * window for part in self.output(h).chunk(2, dim=-1))
        earlier = behind[: max(length - 1, 0)].flip(0)
        return torch.cat([earlier, ahead]).mT


FILTERS = {"implicit": ImplicitFilter, "explicit": ExplicitFilter}


def _check_length(op: str, argument: str, length: int, most: int | None = None) -> None:
    if most is None:
        require(length >= 1, lambda: f"{op}: {argument} must be at least 1, but is {length}")
    else:
        require(
            0 <= length <= most,
            lambda: f"{op}: {argument} must be at most max_length, {most}, but is {length}",
        )
