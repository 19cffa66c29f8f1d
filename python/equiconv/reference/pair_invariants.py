"""The definition of ``pair_invariants``, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.polynomial import polynomial_features

__all__ = ["fibre_invariants", "norm", "pair_invariants"]


def pair_invariants(
    rel: Tensor,
    grid: Tensor | None = None,
    *,
    batch: Tensor | None = None,
    receiver: Tensor | None = None,
    sender: Tensor | None = None,
    full: bool = False,
    complete: bool = False,
    smooth: bool = False,
    extra: Tensor | None = None,
    degree: int = 1,
) -> Tensor:
    """Invariant attributes of point pairs, with what :func:`equiconv.pair_invariants` says of each argument.

    rel: (E, n). grid: (O, n) or (O, n, n), with batch (E,) one for each graph. receiver, sender: (E, n) or
    (E, n, n). Attributes (E, A), (E, O, A) or, of a full bundle, (E, O, O, A).
    """
    frames = _holds_frames(grid, batch, receiver)
    if grid is not None:
        grid = grid[None] if batch is None else grid[batch]  # (1 or E, O, …)
        rel = rel[:, None]
        receiver, sender = grid, None
        if full:  # (E, sender's orientation, receiver's orientation, …)
            rel, receiver, sender = rel[:, None], grid[:, None], grid[:, :, None]
    columns = _of_positions(rel, receiver, frames, smooth)
    if receiver is not None and sender is not None:
        columns += _of_orientations(receiver, sender, frames, complete)
        if complete and rel.shape[-1] == 3 and not frames:
            columns.append(_dot(sender, rel))
    if extra is not None:
        columns += [column.view(*column.shape, *[1] * (rel.dim() - 2)) for column in extra.unbind(1)]
    columns = list(torch.broadcast_tensors(*columns))  # type: ignore[no-untyped-call]
    return polynomial_features(torch.stack(columns, -1), degree)


def fibre_invariants(grid: Tensor, *, complete: bool = False, degree: int = 1) -> Tensor:
    """(O, O, A): attributes of the sender's orientation (first) as seen from the receiver's."""
    columns = _of_orientations(grid[None], grid[:, None], grid.dim() == 3, complete)
    return polynomial_features(torch.stack(columns, -1), degree)


def _holds_frames(grid: Tensor | None, batch: Tensor | None, receiver: Tensor | None) -> bool:
    if grid is not None:
        return grid.dim() == (3 if batch is None else 4)
    return receiver is not None and receiver.dim() == 3


def norm(*components: Tensor) -> Tensor:
    """The length of a vector, whose derivatives of every order are zero where it is zero."""
    squared = sum((component.square() for component in components[1:]), components[0].square())
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0)


def _of_positions(rel: Tensor, receiver: Tensor | None, frames: bool, smooth: bool) -> list[Tensor]:
    """Where the sender is, as seen from the receiver."""
    if receiver is None:
        return [norm(*rel.unbind(-1))]
    if frames:
        return [_dot(axis, rel) for axis in receiver.unbind(-1)]
    along = _dot(receiver, rel)
    if rel.shape[-1] == 2:
        (x, y), (ox, oy) = rel.unbind(-1), receiver.unbind(-1)
        return [along, y * ox - x * oy]
    across = [r - along * o for r, o in zip(rel.unbind(-1), receiver.unbind(-1), strict=True)]
    if smooth:
        return [along, sum((c.square() for c in across[1:]), across[0].square())]
    return [along, norm(*across)]


def _of_orientations(receiver: Tensor, sender: Tensor, frames: bool, complete: bool) -> list[Tensor]:
    """How the sender is turned, as seen from the receiver."""
    if frames:
        return [_dot(a, b) for a in receiver.unbind(-1) for b in sender.unbind(-1)]
    cosine = _dot(receiver, sender)
    if receiver.shape[-1] == 2 and complete:
        (ax, ay), (bx, by) = receiver.unbind(-1), sender.unbind(-1)
        return [cosine, ax * by - ay * bx]
    return [cosine]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Component by component: no axis of two or three numbers to sum over."""
    (first, *rest), (other, *others) = a.unbind(-1), b.unbind(-1)
    return sum((p * q for p, q in zip(rest, others, strict=True)), first * other)
