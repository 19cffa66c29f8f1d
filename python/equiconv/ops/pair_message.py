"""``pair_message``: sums of messages between the points of a graph, which are never stored."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..graph import Graph
from . import tf32 as _tf32  # noqa: F401  CUDA kernels ask it
from .check import MaybeTensor, check_device, check_floating, check_kind, require, text
from .multilinear import MultilinearOp
from .pair_basis import BasisNetwork, takes_whole_tensors
from .pair_message_recomputed import recomputed

__all__ = ["pair_message"]


def pair_message(
    x: Tensor,
    basis: Tensor | BasisNetwork,
    weight: Tensor,
    graph: Graph,
    antipode: Tensor | None = None,
) -> Tensor:
    r"""What every receiver of `graph` is sent: for each pair and orientation, features times a filter.

    .. math:: \text{out}[r, o, c] = \sum_{e \to r} \Big(\sum_k \text{basis}[e, o, k]\,
              \text{weight}[k, c]\Big)\, x[s(e), o, c]

    over the pairs e whose receiver is r; s(e) is the pair's sender. Neither filters nor messages, tensors of
    shape (E, O, C), ever exist.

    Args:
        x: (S, O, C), the features of S senders in O orientations, or (S, C). float32, float64, bfloat16 or
            float16.
        basis: (E, O, K), values of K functions at every pair, in the order of ``graph.senders`` and
            ``graph.receivers``, or (E, K), the same for all orientations. The dtype of x. Or the
            :class:`BasisNetwork` that gives them: then they are computed where they are needed, some pairs at
            a time, in forward and again in backward, and never stored.
        weight: (K, C). The dtype of x, or float32 beside a half type. Or (K, C, D), a filter of every channel
            for every other: a sum over c as well.
        graph: the E pairs, a :class:`Graph` on the device of x.
        antipode: (O,), int64, on the device of x, for a basis of which one row serves both directions of a
            pair, as where orientations come with their opposites and attributes of a pair at o are those of
            the reversed pair at -o. The number of -o for each o, so that ``antipode[antipode[o]] == o`` (on
            CUDA that is taken on trust). The graph is then undirected and basis (B, O, K) or (B, K), B being
            its `num_rows`: its pair e from B on has ``basis[e - B, antipode]`` as its row (or
            ``basis[e - B]``). Half the basis and half the products for its gradient and the weight's, on a
            CPU, but for half types, half of the others too; with a dense weight, or a BasisNetwork, the rows
            (of its features) are written out for all pairs instead.

    Returns:
        (R, O, C) or (R, C), D in the place of C if the weight has it, of the dtype of x, contiguous; zero for
        receivers without a pair. Half types are computed in float32 and rounded once.

    Any strides are read in place. Extra memory is O(threads (K C + O C)). With a dense weight it is at most
    that of x, basis and result together, or 16 MB, whichever is more (twice that backward): some of the
    :func:`pair_moments` at a time are made and multiplied with the weight. Derivatives of every order are
    supported, as are torch.compile, torch.export, torch.func (vmap calls once for each entry) and autocast: x
    and the basis are cast to autocast's dtype, the weight stays float32. The same input gives the same
    bits, on every run, for any number of threads (a dense weight, multiplied by torch, for a given
    number) and in whatever order the pairs are given, as long as several pairs of the same two points
    keep theirs.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    The separable convolution of Bekkers et al., "Fast, Expressive SE(n) Equivariant Networks through
    Weight-Sharing in Position-Orientation Space" (2024, arXiv:2310.02970), over positions; with (E, K) a
    continuous-filter convolution (Schütt et al., SchNet, 2017, arXiv:1706.08566).
    """
    require(
        isinstance(graph, Graph),
        lambda: (
            f"{_OP}: graph must be a Graph, as Graph.from_edge_index makes of an edge_index, but is a "
            f"{type(graph).__name__}"
        ),
    )
    if antipode is not None:
        one_way = graph.one_way
        if one_way is None:
            raise ValueError(f"{_OP}: graph must be undirected where antipode is given, but is {graph}")
        if isinstance(basis, Tensor) and weight.dim() != 3:
            sent: Tensor = torch.ops.equiconv.pair_message_antipodal(
                x, basis, weight, *graph.by_receiver, *graph.by_sender, *one_way, antipode
            )
            return sent
        basis = _of_both_directions(x, basis, graph, antipode)
    if isinstance(basis, BasisNetwork):
        return recomputed(x, basis, weight, graph)
    op = torch.ops.equiconv.pair_message_dense if weight.dim() == 3 else torch.ops.equiconv.pair_message
    out: Tensor = op(x, basis, weight, *graph.by_receiver, *graph.by_sender)
    return out


_OP = "pair_message"


def _of_both_directions(
    x: Tensor, basis: Tensor | BasisNetwork, graph: Graph, antipode: Tensor
) -> Tensor | BasisNetwork:
    """A row for each pair, of a basis with one for both directions, or of what a network makes it from."""
    name, rows = ("basis", basis) if isinstance(basis, Tensor) else ("features", basis.features)
    _check_antipode(antipode, x)
    _check_involution(antipode)
    have, want = rows.shape[0], graph.num_rows
    require(
        have == want,
        lambda: f"{_OP}: {name} must have a row for each undirected pair of graph, {want}, but has {have}",
    )

    def written_out(rows: Tensor) -> Tensor:
        back = rows[: graph.num_pairs - want]
        return torch.cat((rows, back[:, antipode] if rows.dim() == 3 else back))

    if isinstance(basis, Tensor):
        return written_out(basis)
    window = None if basis.window is None else written_out(basis.window)
    return basis._replace(features=written_out(rows), window=window)


# ---- the dispatcher ops: fake kernels, and what is generic over multilinear ops --------------------------


def _check_antipode(antipode: Tensor, x: Tensor) -> None:
    orientations = x.shape[1] if x.dim() == 3 else 1
    check_device(_OP, "antipode", antipode, x)
    require(
        antipode.dtype == torch.int64, lambda: f"{_OP}: antipode must be int64, but is {text(antipode.dtype)}"
    )
    require(
        tuple(antipode.shape) == (orientations,),
        lambda: (
            f"{_OP}: antipode must have shape ({orientations},), one for each orientation of x, but has "
            f"{tuple(antipode.shape)}"
        ),
    )
    require(antipode.is_contiguous(), lambda: f"{_OP}: antipode must be contiguous, but is not")


def _check_involution(antipode: Tensor) -> None:
    """Of a tensor on the CPU whose entries are known: not while a program is traced."""
    if antipode.device.type != "cpu" or type(antipode) is not Tensor or takes_whole_tensors():
        return
    opposite = antipode.tolist()
    for o, other in enumerate(opposite):
        if not 0 <= other < len(opposite):
            raise ValueError(
                f"{_OP}: antipode must be 0 to {len(opposite) - 1}, but antipode[{o}] is {other}"
            )
    for o, other in enumerate(opposite):
        if opposite[other] != o:
            raise ValueError(
                f"{_OP}: antipode must lead back to where it comes from, but leads from {o} to {other} to "
                f"{opposite[other]}"
            )


def _check(x: Tensor, basis: Tensor, weight: Tensor, *graph: Tensor) -> list[int]:
    """The shape of the result."""
    receiver_offsets, senders, _, sender_offsets, _, _, *antipodal = graph
    check_floating(_OP, "x", x)
    require(
        x.dim() in (2, 3), lambda: f"{_OP}: x must be (S, O, C) or (S, C), but has shape {tuple(x.shape)}"
    )
    check_device(_OP, "graph", senders, x)
    check_kind(_OP, "basis", basis, x)
    ranks = "(E, K) where x is (S, C)" if x.dim() == 2 else "(E, O, K) or (E, K)"
    require(
        basis.dim() == 2 or (basis.dim() == 3 and x.dim() == 3),
        lambda: f"{_OP}: basis must be {ranks}, but has shape {tuple(basis.shape)}",
    )
    check_kind(_OP, "weight", weight, x, weight=True)
    require(
        weight.dim() in (2, 3),
        lambda: f"{_OP}: weight must be (K, C) or (K, C, D), but has shape {tuple(weight.shape)}",
    )
    have, want = x.shape[0], sender_offsets.shape[0] - 1
    require(
        have == want, lambda: f"{_OP}: x must have a row for each sender of graph, {want}, but has {have}"
    )
    pairs, rows, kind = senders.shape[0], basis.shape[0], ""
    if antipodal:
        _, one_way, _, antipode = antipodal
        _check_antipode(antipode, x)
        pairs, kind = one_way.shape[0], "undirected "
    require(
        rows == pairs,
        lambda: f"{_OP}: basis must have a row for each {kind}pair of graph, {pairs}, but has {rows}",
    )
    if basis.dim() == 3:
        require(
            basis.shape[1] == x.shape[1],
            lambda: f"{_OP}: basis must have the orientations of x, {x.shape[1]}, but has {basis.shape[1]}",
        )
    functions, channels = weight.shape[:2]
    require(
        functions == basis.shape[-1],
        lambda: f"{_OP}: weight must have the functions of basis, {basis.shape[-1]}, but has {functions}",
    )
    require(
        channels == x.shape[-1],
        lambda: f"{_OP}: weight must have the channels of x, {x.shape[-1]}, but has {channels}",
    )
    return [receiver_offsets.shape[0] - 1, *x.shape[1:-1], weight.shape[-1]]


def _fake(x: Tensor, basis: Tensor, weight: Tensor, *graph: Tensor) -> Tensor:
    return x.new_empty(_check(x, basis, weight, *graph))


def _fake_backward(
    grad_out: Tensor, x: Tensor, basis: Tensor, weight: Tensor, *rest: Tensor | bool
) -> tuple[Tensor, ...]:
    graph, needs = rest[:-3], rest[-3:]
    shape = _check(x, basis, weight, *graph)  # type: ignore[arg-type]
    check_kind(_OP, "grad_out", grad_out, x)
    require(
        list(grad_out.shape) == shape,
        lambda: (
            f"{_OP}: grad_out must have the shape of the result, {tuple(shape)}, but has "
            f"{tuple(grad_out.shape)}"
        ),
    )
    return tuple(
        argument.new_empty(argument.shape) if need else x.new_empty(0)
        for argument, need in zip((x, basis, weight), needs, strict=True)
    )


# ---- dense weights: moments, then a matrix product -------------------------------------------------------


class _Dense:
    """A call with a weight (K, C, D), and the pieces in which it is computed: in float32 for half types."""

    def __init__(self, x: Tensor, basis: Tensor, weight: Tensor, graph: tuple[Tensor, ...]) -> None:
        self.shape = _check(x, basis, weight, *graph)
        self.computed = torch.promote_types(x.dtype, torch.float32)
        self.x = x if x.dim() == 3 else x[:, None]
        self.basis = basis if basis.dim() == 3 else basis[:, None]
        self.shared = x.dim() == 3 and basis.dim() == 2
        self.weight = weight.to(self.computed)
        self.graph = graph

        (functions, channels, out), orientations = weight.shape, self.x.shape[1]
        self.receivers = self.shape[0]
        most = self.room(x.numel() + basis.numel() + self.receivers * orientations * out)
        matrix = max(1, self.receivers * channels)  # of one orientation and function
        self.orientations = _ranges(orientations, most // (matrix * max(1, functions)))
        together = max((stop - start for start, stop in self.orientations), default=1)
        self.functions = _ranges(functions, most // (matrix * together))

    @staticmethod
    def room(given: int) -> int:
        """Entries of moments that there may be: as many as the arguments and the result have, or 16 MB."""
        return max(2**22, given)

    def inputs(self, o: slice, k: slice) -> tuple[Tensor, Tensor]:
        """Of some orientations and functions, x and basis."""
        basis = self.basis[:, :, k].to(self.computed)
        return self.x[:, o].to(self.computed), basis[:, 0] if self.shared else basis[:, o]

    def moments(self, o: slice, k: slice) -> Tensor:
        """(R · orientations, functions · C)"""
        moments: Tensor = torch.ops.equiconv.pair_moments(*self.inputs(o, k), *self.graph)
        return moments.flatten(2).flatten(0, 1)

    def matrix(self, k: slice) -> Tensor:
        return self.weight[k].flatten(0, 1)

    def forward(self) -> Tensor:
        out = self.x.new_zeros(self.receivers, self.x.shape[1], self.shape[-1])
        for o in _slices(self.orientations):
            terms = (self.moments(o, k) @ self.matrix(k) for k in _slices(self.functions))
            total = next(terms, None)
            for term in terms:
                total = term if total is None else total.add_(term)
            if total is not None:
                out[:, o] = total.view_as(out[:, o])
        return out.view(self.shape)

    def backward(
        self, grad_out: Tensor, need_x: bool, need_basis: bool, need_weight: bool
    ) -> tuple[MaybeTensor, ...]:
        def gradient(need: bool, t: Tensor) -> MaybeTensor:
            return torch.zeros(t.shape, dtype=self.computed, device=t.device) if need else None

        grad_x, grad_basis = gradient(need_x, self.x), gradient(need_basis, self.basis)
        grad_weight = gradient(need_weight, self.weight)
        grad_out = grad_out if grad_out.dim() == 3 else grad_out[:, None]
        for o in _slices(self.orientations):
            g = grad_out[:, o].to(self.computed).flatten(0, 1)
            for k in _slices(self.functions):
                if grad_weight is not None:
                    grad_weight[k] += (self.moments(o, k).T @ g).view_as(grad_weight[k])
                if not (need_x or need_basis):
                    continue
                x, basis = self.inputs(o, k)
                of_moments = (g @ self.matrix(k).T).view(
                    self.receivers, x.shape[1], basis.shape[-1], x.shape[-1]
                )
                parts = torch.ops.equiconv.pair_moments_backward(
                    of_moments, x, basis, *self.graph, need_x, need_basis
                )
                if grad_x is not None:
                    grad_x[:, o] += parts[0]
                if grad_basis is not None:
                    (grad_basis[:, 0, k] if self.shared else grad_basis[:, o, k]).add_(parts[1])
        return grad_x, grad_basis, grad_weight


def _dense(x: Tensor, basis: Tensor, weight: Tensor, *graph: Tensor) -> Tensor:
    return _Dense(x, basis, weight, graph).forward()


def _dense_backward(
    grad_out: Tensor, x: Tensor, basis: Tensor, weight: Tensor, *rest: Tensor
) -> tuple[Tensor, ...]:
    call = _Dense(x, basis, weight, rest[:-3])
    grads = call.backward(grad_out, *map(bool, rest[-3:]))
    return tuple(
        x.new_empty(0) if grad is None else grad.to(argument.dtype).view(argument.shape)
        for grad, argument in zip(grads, (x, basis, weight), strict=True)
    )


def _ranges(count: int, most: int) -> list[tuple[int, int]]:
    """From 0 to `count` in steps of at most `most`, and at least 1."""
    step = max(1, most)
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _slices(ranges: list[tuple[int, int]]) -> Iterator[slice]:
    return (slice(*ends) for ends in ranges)


_library = torch.library.Library("equiconv", "FRAGMENT")  # type: ignore[no-untyped-call]
_TENSORS = "Tensor x, Tensor basis, Tensor weight, " + ", ".join(
    f"Tensor {name}"
    for name in (
        "receiver_offsets",
        "senders",
        "receiver_rows",
        "sender_offsets",
        "receivers",
        "sender_rows",
    )
)
_library.define(f"pair_message_dense({_TENSORS}) -> Tensor")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    f"pair_message_dense_backward(Tensor grad_out, {_TENSORS}, bool need_x, bool need_basis, "
    "bool need_weight) -> (Tensor, Tensor, Tensor)"
)
for _device in ("CPU", "CUDA"):
    if torch._C._dispatch_has_kernel_for_dispatch_key("equiconv::pair_moments", _device):
        _library.impl("pair_message_dense", _dense, _device)  # type: ignore[no-untyped-call]
        _library.impl("pair_message_dense_backward", _dense_backward, _device)  # type: ignore[no-untyped-call]

for _name in (_OP, f"{_OP}_antipodal", f"{_OP}_dense"):
    MultilinearOp(
        name=_name,
        arguments=("x", "basis", "weight"),
        groups=((0,), (1,), (2,)),
        weights=(2,),
        others=("graph",),
    ).register(_fake, _fake_backward)
