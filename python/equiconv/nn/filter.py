"""Long filters that do not depend on the data: stored tap by tap, or made by a network from tap positions."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.check import one_of, require
from ..ops.implicit_filter import implicit_filter


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
        # Not in the state: they follow from the sizes.
        self.register_buffer("features", torch.empty(max_length, emb_dim), persistent=False)
        self.register_buffer("rates", torch.empty(channels), persistent=False)
        self.input = nn.Linear(emb_dim, order)
        self.inner = nn.ModuleList(nn.Linear(order, order) for _ in range(num_inner))
        self.output = nn.Linear(order, 2 * channels if two_sided else channels, bias=False)
        self.omega = nn.Parameter(torch.empty(order))
        self.first_omega = float(omega)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fills features and rates, which no state has, and ω; the layers have one of their own.

        For modules made on the meta device, once `to_empty` has given them memory.
        """
        length, emb_dim = self.features.shape
        bands = (emb_dim - 1) // 2
        linspace = functools.partial(torch.linspace, dtype=torch.float64, device=self.features.device)
        t, frequencies = linspace(0, 1, length)[:, None], linspace(1e-4, bands - 1, bands)
        turns = torch.arange(length, dtype=torch.float64, device=self.features.device)[:, None] / length
        angles = 2 * math.pi * turns * frequencies
        slowest, fastest = (-math.log(0.01) / part for part in (1.5, 0.3))
        with torch.no_grad():
            self.features.copy_(torch.cat([t, angles.cos(), -angles.sin()], dim=1))
            self.rates.copy_(linspace(slowest, fastest, len(self.rates)))
            self.omega.fill_(self.first_omega)

    def forward(self, length: int) -> Tensor:
        """(D, length), or two-sided (D, 2 length - 1)."""
        taps = implicit_filter(*self.network(length))
        if not self.two_sided:
            return taps
        ahead, behind = taps.chunk(2)
        return torch.cat([behind.flip(1), ahead], dim=1)[:, 1:]  # without lag -length

    def network(self, length: int) -> tuple[Tensor, ...]:
        """The arguments of :func:`equiconv.implicit_filter`, ω folded into weights and biases."""
        _check_length("ImplicitFilter", "length", length, self.max_length)
        dtype, order = self.omega.dtype, len(self.omega)
        layers = [
            (self.omega[:, None] * layer.weight, self.omega * layer.bias)
            for layer in (self.input, *self.inner)
        ]
        (first_weight, first_bias), *inner = layers
        weights = torch.stack([w for w, _ in inner]) if inner else self.omega.new_empty(0, order, order)
        biases = torch.stack([b for _, b in inner]) if inner else self.omega.new_empty(0, order)
        features, rates = self.features[:length].to(dtype), self.rates.to(dtype)
        if self.two_sided:
            rates = rates.repeat(2)
        return features, first_weight, first_bias, weights, biases, self.output.weight, rates


FILTERS = {"implicit": ImplicitFilter, "explicit": ExplicitFilter}
OPTIONS: dict[str, tuple[str, ...]] = {"implicit": ("emb_dim", "order", "num_inner", "omega"), "explicit": ()}


def check_filter(op: str, filter: str | None, max_length: int | None, options: dict[str, Any]) -> None:
    """That the filter of a layer can be made."""
    require(
        filter is None or filter in FILTERS,
        lambda: f"{op}: filter must be {one_of([*FILTERS, 'None'])}, but is {filter}",
    )
    require(
        filter is None or max_length is not None,
        lambda: f"{op}: max_length must be given where filter is {filter}, but is absent",
    )
    allowed = OPTIONS[filter] if filter is not None else ()
    rule = f"among {', '.join(allowed)}" if allowed else "absent"
    unknown = [name for name in options if name not in allowed]
    require(
        not unknown,
        lambda: f"{op}: options must be {rule} where filter is {filter}, but {unknown[0]} is there",
    )


def _check_length(op: str, argument: str, length: int, most: int | None = None) -> None:
    if most is None:
        require(length >= 1, lambda: f"{op}: {argument} must be at least 1, but is {length}")
    else:
        require(
            0 <= length <= most,
            lambda: f"{op}: {argument} must be at most max_length, {most}, but is {length}",
        )
