"""The definition of ``pair_moments``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Graph

__all__ = ["pair_moments"]


def pair_moments(x: Tensor, basis: Tensor, graph: Graph) -> Tensor:
    """out[r, o, k, c] = Σ over pairs e with receiver r of basis[e, o, k] x[s(e), o, c].

    x: (S, O, C) or (S, C); basis: (E, O, K), or (E, K), the same for all o. Half types are computed in
    float32 and rounded once.
    """
    computed = torch.promote_types(x.dtype, torch.float32)
    b = basis if basis.dim() == x.dim() else basis[:, None]
    products = b.to(computed)[..., None] * x.to(computed)[graph.senders.long()][..., None, :]
    out = products.new_zeros(graph.num_receivers, *products.shape[1:])
    return out.index_add(0, graph.receivers.long(), products).to(x.dtype)
