"""The smooth cut-off of a filter's reach."""

from __future__ import annotations

from torch import Tensor

from ..ops.check import require


def polynomial_cutoff(distance: Tensor, radius: float, *, power: int = 6) -> Tensor:
    r"""1 at distance 0, 0 from `radius` on, and there with two derivatives of zero.

    .. math:: 1 - \tfrac{(p+1)(p+2)}{2} x^p + p(p+2)\, x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2},
              \qquad x = \text{distance} / \text{radius}

    Args:
        distance: any shape, not negative.
        radius: positive, in the unit of `distance`.
        power: p, at least 1; at least 3 for two continuous derivatives at distance 0.

    Raises:
        ValueError: radius or power is too small.

    Klicpera et al., Directional Message Passing for Molecular Graphs, ICLR 2020, equation 8.
    """
    require(radius > 0, lambda: f"polynomial_cutoff: radius must be positive, but is {radius}")
    require(power >= 1, lambda: f"polynomial_cutoff: power must be at least 1, but is {power}")
    p = power
    x = (distance / radius).clamp(max=1)  # so that nothing overflows beyond
    inner = (p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2))
    window: Tensor = 1 - x**p * inner
    return window
