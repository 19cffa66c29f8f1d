"""``pair_invariants``: what a pair of points with orientations has that no common motion changes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference import pair_invariants as reference
from .check import MaybeTensor, one_of, require, text

__all__ = ["fibre_invariants", "pair_invariants"]


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
    r"""Attributes of point pairs that no common motion of both points changes, or polynomials in them.

    With rel = position of the sender - position of the receiver, o and R the receiver's orientation or
    frame, o' and R' the sender's:

    ========== ===================== ==================================== ========================
    space      given                 of positions                         of orientations
    ========== ===================== ==================================== ========================
    Rⁿ         rel alone             ‖rel‖                                -
    R²×S¹      orientations in R²    o·rel, o⊥·rel                        o·o'; complete: o⊥·o' too
    R³×S²      orientations in R³    o·rel, ‖rel - (o·rel) o‖             o·o'; complete: o'·rel too
    SE(2, 3)   frames                Rᵀrel                                RᵀR' (row by row)
    ========== ===================== ==================================== ========================

    where o⊥ is o turned by +90°. `complete` adds what the published models leave out: with it the
    attributes tell all pairs apart that no motion maps onto each other (reflections included in R³×S²).

    Orientations are held in one of two ways. In a *bundle* every point has the same `grid` of O; the
    attributes are (E, O, A) of positions, and those of orientations, which no pair changes, are
    :func:`fibre_invariants`. With ``full=True`` both are here, (E, O, O, A), the sender's orientation first.
    In a *cloud* every point has its own, given for each pair as `receiver` and `sender`; (E, A).

    Args:
        rel: (E, n), n = 2 or 3 where there are orientations. float32, float64, bfloat16 or float16.
        grid: (O, n) unit vectors, or (O, n, n) rotations with the axes of a frame as columns.
        batch: (E,) of int64, the graph of each pair; `grid` then is (G, O, n) or (G, O, n, n).
        receiver, sender: (E, n) unit vectors or (E, n, n) rotations.
        full: attributes of all pairs of orientations.
        complete: a complete set, as above. In R³×S² its further attribute is of both, so that a separable
            bundle has no place for it: there it changes nothing.
        smooth: the square of R³×S²'s second attribute. The length itself has a kink where rel is parallel to
            o, and so have forces.
        extra: (E, A') invariants of other origin, as a product of charges, appended to the attributes.
        degree: of the polynomials. 1: the attributes themselves. Else all distinct monomials of total degree
            1 to `degree`, lower degrees first (:func:`equiconv.geometry.monomials`).

    Returns:
        (E, A), (E, O, A) or (E, O, O, A), of the dtype of rel.

    Derivatives of every order are supported. Lengths have derivatives of zero, of every order, where they are
    zero, as on self-loops.

    On a grid with -o beside every o, the attributes (R³×S², R²×S¹) of a pair at o are those of the reversed
    pair at -o, so that one filter row serves both.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Bekkers et al., Fast, Expressive SE(n) Equivariant Networks through Weight-Sharing in
    Position-Orientation Space, ICLR 2024, arXiv:2310.02970; the fourth attribute of R³×S²: Bellaard et al.,
    arXiv:2504.03299.
    """
    _check(rel, grid, batch, receiver, sender, full, extra, degree)
    return reference.pair_invariants(
        rel,
        grid,
        batch=batch,
        receiver=receiver,
        sender=sender,
        full=full,
        complete=complete,
        smooth=smooth,
        extra=extra,
        degree=degree,
    )


def fibre_invariants(grid: Tensor, *, complete: bool = False, degree: int = 1) -> Tensor:
    """The attributes of :func:`pair_invariants` that are of orientations alone, for each two of a grid.

    Args:
        grid: (O, n) unit vectors or (O, n, n) rotations, n = 2 or 3.
        complete: in R²×S¹ the sine too, which tells left from right.
        degree: of the polynomials in them.

    Returns:
        (O, O, A): the sender's orientation first, as seen from the receiver's. A is 1 (cosine), 2 (cosine and
        sine) or n² (RᵀR').

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.
    """
    op = "fibre_invariants"
    require(
        grid.dim() in (2, 3) and all(size in (2, 3) for size in set(grid.shape[1:])),
        lambda: f"{op}: grid must be (O, n) or (O, n, n) with n = 2 or 3, but has shape {tuple(grid.shape)}",
    )
    _check_degree(op, degree)
    return reference.fibre_invariants(grid, complete=complete, degree=degree)


_OP = "pair_invariants"


def _check(
    rel: Tensor,
    grid: MaybeTensor,
    batch: MaybeTensor,
    receiver: MaybeTensor,
    sender: MaybeTensor,
    full: bool,
    extra: MaybeTensor,
    degree: int,
) -> None:
    _check_degree(_OP, degree)
    require(
        rel.is_floating_point(), lambda: f"{_OP}: rel must have a floating dtype, but is {text(rel.dtype)}"
    )
    require(rel.dim() == 2, lambda: f"{_OP}: rel must be (E, n), but has shape {tuple(rel.shape)}")
    pairs, n = rel.shape
    given = {"grid": grid, "receiver": receiver, "sender": sender, "extra": extra}
    for name, tensor in given.items():
        if tensor is not None:
            require(
                tensor.dtype == rel.dtype,
                lambda name=name, tensor=tensor: (  # type: ignore[misc]
                    f"{_OP}: {name} must have the dtype of rel, {text(rel.dtype)}, "
                    f"but has {text(tensor.dtype)}"
                ),
            )
            require(
                tensor.device == rel.device,
                lambda name=name, tensor=tensor: (  # type: ignore[misc]
                    f"{_OP}: {name} must be on the device of rel, {rel.device}, but is on {tensor.device}"
                ),
            )
    oriented = grid is not None or receiver is not None
    require(
        not oriented or n in (2, 3),
        lambda: f"{_OP}: rel must be (E, 2) or (E, 3) beside orientations, but has shape {tuple(rel.shape)}",
    )
    require(
        (receiver is None) == (sender is None),
        lambda: (
            f"{_OP}: receiver and sender must be given together, "
            f"but {'receiver' if receiver is None else 'sender'} is absent"
        ),
    )
    require(
        grid is None or receiver is None,
        lambda: f"{_OP}: grid must be absent where receiver and sender are given, but is there",
    )
    require(
        grid is not None or not full, lambda: f"{_OP}: full must be False where there is no grid, but is True"
    )
    require(
        grid is not None or batch is None,
        lambda: f"{_OP}: batch must be absent where there is no grid, but is there",
    )
    if grid is not None:
        lead = "(O" if batch is None else "(G, O"
        shapes = [f"{lead}, {n})", f"{lead}, {n}, {n})"]
        rank = 2 if batch is None else 3
        require(
            grid.dim() in (rank, rank + 1) and all(size == n for size in grid.shape[rank - 1 :]),
            lambda: f"{_OP}: grid must be {one_of(shapes)}, but has shape {tuple(grid.shape)}",
        )
    if batch is not None:
        require(
            batch.dtype == torch.int64,
            lambda: f"{_OP}: batch must be int64, but is {text(batch.dtype)}",
        )
        require(
            tuple(batch.shape) == (pairs,),
            lambda: f"{_OP}: batch must have shape ({pairs},), but has {tuple(batch.shape)}",
        )
    if receiver is not None and sender is not None:
        for name, tensor in (("receiver", receiver), ("sender", sender)):
            require(
                tuple(tensor.shape) in ((pairs, n), (pairs, n, n)),
                lambda name=name, tensor=tensor: (  # type: ignore[misc]
                    f"{_OP}: {name} must have shape ({pairs}, {n}) or ({pairs}, {n}, {n}), "
                    f"but has {tuple(tensor.shape)}"
                ),
            )
        require(
            receiver.dim() == sender.dim(),
            lambda: (
                f"{_OP}: sender must have the shape of receiver, {tuple(receiver.shape)}, "
                f"but has {tuple(sender.shape)}"
            ),
        )
    if extra is not None:
        require(
            extra.dim() == 2 and extra.shape[0] == pairs,
            lambda: f"{_OP}: extra must have shape ({pairs}, A), but has {tuple(extra.shape)}",
        )


def _check_degree(op: str, degree: int) -> None:
    require(degree >= 1, lambda: f"{op}: degree must be at least 1, but is {degree}")
