"""The network that turns a pair's invariants into basis functions of filters."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ..geometry import fold_repeats, ordered_monomials
from ..ops.pair_basis import BasisNetwork


class FilterBasis(nn.Sequential):
    """GELU(Linear(GELU(Linear(polynomial features)))), on distinct monomials.

    The first layer's weights have a column for each monomial in each order of its factors, as in the
    published checkpoints, and are folded into one for each distinct monomial: the same function, with less to
    compute (9 columns instead of 14 for two attributes and degree 3).

    Args:
        attributes: how many there are.
        hidden_dim: width between the two layers.
        basis_dim: K, how many functions.
        degree: of the polynomials.
    """

    def __init__(self, attributes: int, hidden_dim: int, basis_dim: int, degree: int) -> None:
        super().__init__(
            nn.Identity(),  # the features; pair_invariants makes them
            nn.Linear(len(ordered_monomials(attributes, degree)), hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, basis_dim),
            nn.GELU(),
        )
        self.attributes = attributes
        self.degree = degree

    def forward(self, features: Tensor, window: Tensor | None = None) -> Tensor:
        """features: (E, …, F), the distinct monomials; window: (E,), a factor. Returns (E, …, K)."""
        return self.network(features, window).basis()

    def network(self, features: Tensor, window: Tensor | None = None) -> BasisNetwork:
        """The same, to be computed where it is needed (:func:`equiconv.pair_message`)."""
        first, second = cast(nn.Linear, self[1]), cast(nn.Linear, self[3])
        weight = fold_repeats(first.weight, self.attributes, self.degree)
        return BasisNetwork(features, weight, first.bias, second.weight, second.bias, window)
