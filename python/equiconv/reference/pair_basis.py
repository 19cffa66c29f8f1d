"""The definition of ``pair_basis``, in plain PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["pair_basis"]


def pair_basis(
    features: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    window: Tensor | None = None,
) -> Tensor:
    """GELU(Linear(GELU(Linear(features)))) times the window.

    features: (E, …, F); first_weight: (H, F), first_bias: (H,); second_weight: (K, H), second_bias: (K,);
    window: (E,). Returns (E, …, K).
    """
    hidden = F.gelu(F.linear(features, first_weight, first_bias))
    basis = F.gelu(F.linear(hidden, second_weight, second_bias))
    return basis if window is None else basis * window.view(*window.shape, *[1] * (basis.dim() - 1))
