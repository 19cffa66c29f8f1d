"""The definition of ``long_conv_step``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["long_conv_step"]


def long_conv_step(
    x: Tensor,
    state: Tensor,
    filter: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y[t] = post_gate[t] * sum_j filter[j] * u[t - j], where u = pre_gate * x, at T more positions.

    x, gates: (B, T, D); state: (B, P, D), u at the P positions so far; filter: (D, Lf) or (B, D, Lf).
    Returns y, (B, T, D), and the next state, (B, P + T, D). Half types are computed in float32, which the
    state has, and rounded once.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    u = x.to(wide) if pre_gate is None else pre_gate.to(wide) * x.to(wide)
    u = torch.cat([state.to(wide), u], 1)
    taps = filter.to(wide).mT  # (…, Lf, D)
    y = torch.zeros_like(x, dtype=wide)
    for t in range(x.shape[1]):
        end = state.shape[1] + t + 1
        reach = min(taps.shape[-2], end)
        y[:, t] = (taps[..., :reach, :] * u[:, end - reach : end].flip(1)).sum(1)
    if post_gate is not None:
        y = post_gate.to(wide) * y
    return y.to(x.dtype), u
