"""Polynomial features of invariant attributes, each distinct monomial once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.check import require

Monomial = tuple[int, ...]  # the attributes that are multiplied, in ascending order


def monomials(attributes: int, degree: int) -> list[Monomial]:
    """The distinct monomials of total degree 1 to `degree`, lower degrees first; 9 of (2, 3)."""
    return _products(attributes, degree, ascending=True)


def ordered_monomials(attributes: int, degree: int) -> list[Monomial]:
    """Products in every order, repeats and all, as PONITA's features are; 14 of (2, 3)."""
    return _products(attributes, degree, ascending=False)


def _products(attributes: int, degree: int, *, ascending: bool) -> list[Monomial]:
    result: list[Monomial] = []
    longest: list[Monomial] = [()]
    for _ in range(degree):  # by hand, because torch.compile does not follow itertools here
        longest = [
            (*product, i)
            for product in longest
            for i in range(product[-1] if product and ascending else 0, attributes)
        ]
        result += longest
    return result


def polynomial_features(attributes: Tensor, degree: int) -> Tensor:
    """All distinct monomials of the last axis, (…, A) to (…, F), in the order of :func:`monomials`.

    Raises:
        ValueError: degree is not positive.
    """
    require(degree >= 1, lambda: f"polynomial_features: degree must be at least 1, but is {degree}")
    if degree == 1:
        return attributes
    single = attributes.unbind(-1)
    columns: dict[Monomial, Tensor] = {}
    for monomial in monomials(len(single), degree):
        *rest, last = monomial
        columns[monomial] = columns[tuple(rest)] * single[last] if rest else single[last]
    return torch.stack(list(columns.values()), -1)


def fold_repeats(weight: Tensor, attributes: int, degree: int) -> Tensor:
    """Weights (H, R) of a linear layer on :func:`ordered_monomials`, for :func:`monomials`: (H, F).

    Columns of equal monomials are added up, so both layers are the same function.
    """
    places = {monomial: i for i, monomial in enumerate(monomials(attributes, degree))}
    place = [places[tuple(sorted(product))] for product in ordered_monomials(attributes, degree)]
    one_hot = torch.zeros(len(place), len(places), dtype=weight.dtype, device=weight.device)
    one_hot[torch.arange(len(place)), torch.tensor(place)] = 1
    return weight @ one_hot
