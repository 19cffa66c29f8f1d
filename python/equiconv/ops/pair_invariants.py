"""``pair_invariants``: what a pair of points with orientations has that no common motion changes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reference import pair_invariants as reference
from . import registration
from .check import MaybeTensor, check_floating, check_kind, one_of, refuse_elsewhere, require, text
from .multilinear import ClosedOp, Tensors, changes_of

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

    Half types are computed in float32 and rounded once. Derivatives of every order are supported, as are
    torch.compile, torch.export and torch.func; autocast leaves float32 as it is. Lengths have derivatives of
    zero, of every order, where they are zero, as on self-loops. The same input gives the same bits.

    One pass from rel to the features, one back for the gradients, and one for the derivatives of these, have
    kernels. The plain expression of :mod:`equiconv.reference` is used instead, on every device, for frames,
    `full` and `batch`, in more than three dimensions, where there are more than 128 features, and in
    torch.func's transforms; for the gradient of `grid`; and for derivatives of the third order on.

    On a grid with -o beside every o, the attributes (R³×S², R²×S¹) of a pair at o are those of the reversed
    pair at -o, so that one filter row serves both.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    Bekkers et al., Fast, Expressive SE(n) Equivariant Networks through Weight-Sharing in
    Position-Orientation Space, ICLR 2024, arXiv:2310.02970; the fourth attribute of R³×S²: Bellaard et al.,
    arXiv:2504.03299.
    """
    _check(rel, grid, batch, receiver, sender, full, extra, degree)
    transformed = torch._C._are_functorch_transforms_active()
    tensors = rel, grid, receiver, sender, extra
    if batch is None and not (full or transformed) and _have_kernels(tensors, complete, degree):
        out: Tensor = torch.ops.equiconv.pair_invariants(*tensors, complete, smooth, degree)
        return out
    return _reference(tensors, (complete, smooth, degree), batch=batch, full=full)


def fibre_invariants(grid: Tensor, *, complete: bool = False, degree: int = 1) -> Tensor:
    """The attributes of :func:`pair_invariants` that are of orientations alone, for each two of a grid.

    Args:
        grid: (O, n) unit vectors or (O, n, n) rotations, n = 2 or 3. float32, float64, bfloat16 or float16;
            half types are computed in float32 and rounded once.
        complete: in R²×S¹ the sine too, which tells left from right.
        degree: of the polynomials in them.

    Returns:
        (O, O, A): the sender's orientation first, as seen from the receiver's. A is 1 (cosine), 2 (cosine and
        sine) or n² (RᵀR').

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.
    """
    op = "fibre_invariants"
    check_floating(op, "grid", grid)
    require(
        grid.dim() in (2, 3) and all(size == grid.shape[1] and size in (2, 3) for size in grid.shape[1:]),
        lambda: f"{op}: grid must be (O, n) or (O, n, n) with n = 2 or 3, but has shape {tuple(grid.shape)}",
    )
    _check_degree(op, degree)
    wide = grid.to(torch.promote_types(grid.dtype, torch.float32))
    return reference.fibre_invariants(wide, complete=complete, degree=degree).to(grid.dtype)


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
    given = {"grid": grid, "receiver": receiver, "sender": sender, "extra": extra}
    if any(t is not None and t.is_nested for t in (rel, *given.values())):
        refuse_elsewhere(_OP, {"rel": rel, **given})
    check_floating(_OP, "rel", rel)
    require(
        rel.dim() == 2 and rel.shape[1] >= 1,
        lambda: f"{_OP}: rel must be (E, n), n at least 1, but has shape {tuple(rel.shape)}",
    )
    pairs, n = rel.shape
    for name, tensor in given.items():
        if tensor is not None:
            check_kind(_OP, name, tensor, rel, of="rel")
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


_MAX_FEATURES = 128


def _have_kernels(tensors: Tensors, complete: bool, degree: int) -> bool:
    rel, grid, receiver, _, _ = tensors
    assert rel is not None
    frames = (grid is not None and grid.dim() == 3) or (receiver is not None and receiver.dim() == 3)
    if frames or not 1 <= rel.shape[1] <= 3:
        return False
    return _count_features(tensors, complete, degree) <= _MAX_FEATURES


def _count_features(tensors: Tensors, complete: bool, degree: int) -> int:
    _, grid, receiver, _, extra = tensors
    attributes = 1 if grid is None and receiver is None else 2
    if receiver is not None:
        attributes += 2 if complete else 1
    if extra is not None:
        attributes += int(extra.shape[1])
    features = 1  # with degree 0: a binomial coefficient, of sizes that may be symbols
    for i in range(1, attributes + 1):
        features = features * (degree + i) // i
    return features - 1


# ---- the dispatcher ops: fake kernels ---------------------------------------------------------------------


def _fake(
    rel: Tensor,
    grid: MaybeTensor,
    receiver: MaybeTensor,
    sender: MaybeTensor,
    extra: MaybeTensor,
    complete: bool,
    smooth: bool,
    degree: int,
) -> Tensor:
    features = _count_features((rel, grid, receiver, sender, extra), complete, degree)
    return rel.new_empty(rel.shape[0], *([] if grid is None else [grid.shape[0]]), features)


def _gradients_like(rel: Tensor, tensors: Tensors, needs: Sequence[bool]) -> tuple[Tensor, ...]:
    return tuple(
        t.new_empty(t.shape) if need and t is not None else rel.new_empty(0)
        for t, need in zip(tensors, needs, strict=True)
    )


def _fake_backward(grad_out: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return _gradients_like(args[0], args[:5], args[-5:])


def _fake_tangent(grad_out: MaybeTensor, *args: Any) -> tuple[Tensor, ...]:
    need_out, *needs = args[-5:]
    out = _fake(*args[:5], *args[9:12]) if need_out else args[0].new_empty(0)
    return out, *_gradients_like(args[0], _but_grid(args[:5]), needs)


# ---- the dispatcher ops: derivatives ----------------------------------------------------------------------

_GRID = 1  # its position among the tensors


def _but_grid(tensors: Sequence[Any]) -> list[Any]:
    return [*tensors[:_GRID], *tensors[_GRID + 1 :]]


class InvariantsOp(ClosedOp):
    """With g = grad_out and J the derivative of out: the backward op gives Jᵀg, and a third op, for changes v
    of the arguments, J v and the derivative of Jᵀg along v. Both are what derivatives of these two are made
    of: that of ⟨v, Jᵀg⟩ is J v by g, and by the arguments, as second derivatives are symmetric, the other."""

    @property
    def derivative(self) -> Any:
        return torch.ops.equiconv.pair_invariants_tangent.default

    def register(self, fake: Any, fake_backward: Any) -> None:
        super().register(fake, fake_backward)
        registration.register(
            self.derivative,
            self.name,
            ("grad_out", *self.arguments),
            fake=_fake_tangent,
            autograd=registration.autograd_kernel(self.derivative, None, _differentiable_tangent),
            vmap=functools.partial(registration.each_entry, self.derivative),
        )

    def gradients(
        self, grad_out: Tensor, tensors: Tensors, rest: tuple[Any, ...], needs: Sequence[bool]
    ) -> tuple[MaybeTensor, ...]:
        of_kernel = [need and i != _GRID for i, need in enumerate(needs)]
        grads = [*super().gradients(grad_out, tensors, rest, of_kernel)]
        if needs[_GRID]:
            grads[_GRID] = _gradient_of_grid(grad_out, tensors, rest)
        return tuple(grads)

    def tangent(self, tensors: Tensors, rest: tuple[Any, ...], tangents: Tensors) -> Tensor:
        change, *_ = self._changes(None, tensors, rest, tangents, True, (False,) * len(tensors))
        assert change is not None
        return change

    def gradient_cotangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        cotangents: Tensors,
        need_grad_out: bool,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if any(v is not None for v in cotangents):
            yield self._changes(grad_out, tensors, rest, cotangents, need_grad_out, needs)

    def gradient_tangents(
        self,
        grad_out: Tensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        tangents: Tensors,
        needs: Sequence[bool],
    ) -> Iterator[Tensors]:
        if any(v is not None for v in tangents):
            yield self._changes(grad_out, tensors, rest, tangents, False, needs)[1:]

    def _changes(
        self,
        grad_out: MaybeTensor,
        tensors: Tensors,
        rest: tuple[Any, ...],
        changes: Tensors,
        need_out: bool,
        needs: Sequence[bool],
    ) -> list[MaybeTensor]:
        """Of the result, and of every argument's gradient, where it is needed."""
        needs = [need and t is not None for need, t in zip(needs, tensors, strict=True)]
        if changes[_GRID] is not None or needs[_GRID]:
            made = _changes_of_reference(grad_out, tensors, rest, changes)
        else:
            flags = need_out, *_but_grid(needs)
            given = _but_grid(changes)
            made = [*self.derivative(grad_out if any(needs) else None, *tensors, *given, *rest, *flags)]
            made.insert(1 + _GRID, None)
        return [t if need else None for t, need in zip(made, (need_out, *needs), strict=True)]


def _reference(
    tensors: Tensors, rest: tuple[Any, ...], *, batch: MaybeTensor = None, full: bool = False
) -> Tensor:
    """In plain PyTorch; of half types in float32, rounded once."""
    given = tensors[0]
    assert given is not None
    wide = torch.promote_types(given.dtype, torch.float32)
    rel, grid, receiver, sender, extra = (None if t is None else t.to(wide) for t in tensors)
    complete, smooth, degree = rest
    assert rel is not None
    return reference.pair_invariants(
        rel,
        grid,
        batch=batch,
        full=full,
        receiver=receiver,
        sender=sender,
        complete=complete,
        smooth=smooth,
        extra=extra,
        degree=degree,
    ).to(given.dtype)


def _gradient_of_grid(grad_out: Tensor, tensors: Tensors, rest: tuple[Any, ...]) -> Tensor:
    def out(grid: Tensor) -> Tensor:
        return _reference((*tensors[:_GRID], grid, *tensors[_GRID + 1 :]), rest)

    _, pull = torch.func.vjp(out, tensors[_GRID])  # type: ignore[misc]
    (gradient,) = pull(grad_out)
    return gradient  # type: ignore[no-any-return]


def _changes_of_reference(
    grad_out: MaybeTensor, tensors: Tensors, rest: tuple[Any, ...], changes: Tensors
) -> list[MaybeTensor]:
    return changes_of(lambda *given: _reference(given, rest), grad_out, tensors, changes)


def _differentiable_tangent(grad_out: MaybeTensor, *args: Any) -> tuple[Tensor, ...]:
    """What the third op gives, where it is differentiated."""
    tensors, given, rest, needs = args[:5], args[5:9], args[9:12], args[12:]
    changes = [*given[:_GRID], None, *given[_GRID:]]
    change, *of_gradients = _changes_of_reference(grad_out, tensors, rest, changes)
    made = change, *_but_grid(of_gradients)
    return tuple(
        t if need and t is not None else args[0].new_empty(0) for t, need in zip(made, needs, strict=True)
    )


InvariantsOp(
    name=_OP, arguments=("rel", "grid", "receiver", "sender", "extra"), weights=(0, 1, 2, 3, 4)
).register(_fake, _fake_backward)
