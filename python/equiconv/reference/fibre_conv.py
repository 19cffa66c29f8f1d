"""The definition of ``fibre_conv``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fibre_conv"]


def fibre_conv(x: Tensor, basis: Tensor, weight: Tensor) -> Tensor:
    """out[n, p, d] = (1/O) Σₒ Σ_c (Σ_k basis[o, p, k] weight[k, c, d]) x[n, o, c].

    x: (N, O, C); basis: (O, P, K); weight: (K, C), which stands for its diagonal matrices, or (K, C, D). Half
    types are computed in float32 and rounded once.
    """

    def computed(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(x.dtype, torch.float32))

    filter = torch.tensordot(computed(basis), computed(weight), 1)  # (O, P, C) or (O, P, C, D)
    channels = "noc,opc->npc" if weight.dim() == 2 else "noc,opcd->npd"
    summed: Tensor = torch.einsum(channels, computed(x), filter)
    return (summed / max(x.shape[1], 1)).to(x.dtype)
