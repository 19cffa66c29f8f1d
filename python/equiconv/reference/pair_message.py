"""The definition of ``pair_message``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Graph

__all__ = ["pair_message"]


def pair_message(
    x: Tensor, basis: Tensor, weight: Tensor, graph: Graph, antipode: Tensor | None = None
) -> Tensor:
    """out[r, o, d] = Σ over pairs e with receiver r of Σ_k Σ_c basis[e, o, k] weight[k, c, d] x[s(e), o, c].

    x: (S, O, C) or (S, C); basis: (E, O, K), or (E, K), the same for all o; weight: (K, C), which stands for
    its diagonal matrices, or (K, C, D). Half types are computed in float32 and rounded once.

    antipode: (O,), of an antipodal basis (B, O, K) or (B, K) of an undirected graph with B rows: its pairs
    from B on have the rows from 0 on, at the opposite orientations.
    """
    if antipode is not None:
        back = basis[: graph.num_pairs - len(basis)]
        basis = torch.cat((basis, back[:, antipode] if basis.dim() == 3 else back))

    def computed(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(x.dtype, torch.float32))

    b = basis if basis.dim() == x.dim() else basis[:, None]
    sent = computed(x)[graph.senders.long()]
    if weight.dim() == 2:
        message = (computed(b) @ computed(weight)) * sent
    else:
        filter = torch.einsum("e...k,kcd->e...cd", computed(b), computed(weight))
        message = (sent[..., None, :] @ filter).squeeze(-2)
    out = message.new_zeros(graph.num_receivers, *message.shape[1:])
    return out.index_add(0, graph.receivers.long(), message).to(x.dtype)
