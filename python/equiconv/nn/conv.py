"""Equivariant convolutions over positions and orientations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..graph import Graph
from ..ops.check import require
from ..ops.fibre_conv import fibre_conv
from ..ops.pair_basis import BasisNetwork
from ..ops.pair_message import pair_message
from .calibration import Calibrated


class PointCloudConv(Calibrated):
    """Convolution over a cloud of points, with or without an orientation each.

        out[r] = Σ over pairs e with receiver r of filter[e] x[sender of e] + bias,   filter = basis · weight

    Args:
        in_channels, out_channels: C and D.
        basis_dim: K.
        bias: whether there is one.
        groups: C, where C = D and the channels stay apart, or 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, basis_dim: int, *, bias: bool = True, groups: int = 1
    ) -> None:
        super().__init__()
        self.shape = _check_groups("PointCloudConv", in_channels, out_channels, groups)
        self.kernel = nn.Linear(basis_dim, in_channels * out_channels // groups, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self,
        x: Tensor,
        basis: Tensor | BasisNetwork,
        graph: Graph,
        antipode: Tensor | None = None,
    ) -> Tensor:
        """x: (N, C), basis: (E, K), a row for each pair of `graph`, or what computes them. Returns (N, D).

        antipode: as :func:`equiconv.pair_message` has it, beside a basis for both directions of pairs.
        """
        out = pair_message(x, basis, _weight(self.kernel, self.shape), graph, antipode)
        if self.to_be_calibrated:
            self.calibrate((self.kernel, x, out))
        return out if self.bias is None else out + self.bias


class FiberBundleConv(Calibrated):
    """Convolution over points with the same grid of O orientations at each.

    Separable, it is a sum over pairs at every orientation, then one over orientations at every point:

        y[r, o, c] = Σ over pairs e with receiver r of (basis[e, o] · W[c]) x[sender of e, o, c]
        out[r, p, d] = (1/O) Σₒ Σ_c (fibre_basis[o, p] · V[d, c]) y[r, o, c] + bias[d]

    else one sum over pairs and the sender's orientations, with a filter for each two orientations.

    Args:
        in_channels, out_channels: C and D.
        basis_dim: K.
        bias: whether there is one.
        separable: see above.
        groups: C, where C = D and the channels stay apart, or 1; if separable, of the second sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        basis_dim: int,
        *,
        bias: bool = True,
        separable: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.shape = _check_groups("FiberBundleConv", in_channels, out_channels, groups)
        mixing = in_channels * out_channels // groups
        self.kernel = nn.Linear(basis_dim, in_channels if separable else mixing, bias=False)
        self.fiber_kernel = nn.Linear(basis_dim, mixing, bias=False) if separable else None
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self,
        x: Tensor,
        basis: Tensor | BasisNetwork,
        fibre_basis: Tensor | None,
        graph: Graph,
        antipode: Tensor | None = None,
    ) -> Tensor:
        """x: (N, O, C). Returns (N, O, D).

        basis: (E, O, K), a row for each pair of `graph`, or what computes them; if not separable
        (E, O, O, K), the sender's orientation first. fibre_basis: (O, O, K), the sender's first; if not
        separable None. antipode: (O,), as :func:`equiconv.pair_message` has it, beside a basis for both
        directions of pairs; only if separable.
        """
        if self.fiber_kernel is None:
            require(
                antipode is None,
                lambda: "FiberBundleConv: antipode must be absent where separable is False, but is there",
            )
            out = self._full(x, basis, graph)
            if self.to_be_calibrated:
                self.calibrate((self.kernel, x, out))
        else:
            if fibre_basis is None:
                raise ValueError(
                    "FiberBundleConv: fibre_basis must be given where separable is True, but is absent"
                )
            y = pair_message(x, basis, self.kernel.weight.T, graph, antipode)
            out = fibre_conv(y, fibre_basis, _weight(self.fiber_kernel, self.shape))
            if self.to_be_calibrated:
                self.calibrate((self.kernel, x, y), (self.fiber_kernel, y, out))
        return out if self.bias is None else out + self.bias

    def _full(self, x: Tensor, basis: Tensor | BasisNetwork, graph: Graph) -> Tensor:
        """Each two orientations as one: x repeats over the receiver's, and the sender's are summed last."""
        basis = basis.basis() if isinstance(basis, BasisNetwork) else basis
        orientations = basis.shape[1:3]
        repeated = x[:, :, None].expand(-1, -1, orientations[1], -1).flatten(1, 2)
        out = pair_message(repeated, basis.flatten(1, 2), _weight(self.kernel, self.shape), graph)
        return out.view(len(out), *orientations, out.shape[-1]).sum(1)


def _weight(layer: nn.Linear, shape: tuple[int, int] | None) -> Tensor:
    """(K, C) where channels stay apart, else (K, C, D); the layer's rows are D of C, as published."""
    return layer.weight.T if shape is None else layer.weight.view(*shape, layer.in_features).permute(2, 1, 0)


def _check_groups(op: str, in_channels: int, out_channels: int, groups: int) -> tuple[int, int] | None:
    """(D, C) of mixing channels; None where they stay apart."""
    if groups == 1:
        return out_channels, in_channels
    require(
        groups == in_channels == out_channels,
        lambda: (
            f"{op}: groups must be 1, or equal to in_channels and out_channels, {in_channels} and "
            f"{out_channels}, but is {groups}"
        ),
    )
    return None
