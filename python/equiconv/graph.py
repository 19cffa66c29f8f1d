"""``Graph``: which points send to which, prepared once for the ops that sum over pairs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple  # torch.export has a public one for dataclasses only

from .ops.check import require, text

__all__ = ["Csr", "Graph"]

_MOST_POINTS = 2**31 - 1  # their numbers are int32 inside
_FLOWS = ("source_to_target", "target_to_source")


class Csr(NamedTuple):
    """Pairs in groups, one group for each point of one side, by ascending point of the other side.

    Group i is entries offsets[i] … offsets[i + 1] - 1 of the other two.

    offsets: (groups + 1,). neighbours: (E,), the point on the other side. rows: (E,), the pair's number in
    the order in which the graph was given. All int32, or int64 from 2**31 pairs on.
    """

    offsets: Tensor
    neighbours: Tensor
    rows: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Pairs of points, each a sender and a receiver; the points of both sides may be different sets.

    Make one with :meth:`from_pairs`, :meth:`from_csr`, :meth:`from_edge_index`, :meth:`undirected` or
    :meth:`complete`, or with :func:`equiconv.neighbours.within_radius`. They check everything once; what uses
    the graph afterwards checks and copies nothing, and does not wait for a GPU. A graph is a pytree of
    tensors: it may be an argument of compiled and exported functions.

    Whatever is given for each pair, as `basis` of :func:`pair_message`, has its rows in the order of
    `senders` and `receivers`. Sums run over a receiver's pairs by ascending sender, in whatever order the
    pairs were given; only several pairs of the same two points keep their order. Pairs that are
    given by ascending receiver, then sender, are read from memory in the order in which they lie.

    In an undirected graph every pair goes both ways: the pairs from `num_rows` on are the reversals of those
    from 0 on, in their order; self-loops, the last of the first `num_rows`, have none. Elsewhere `num_rows`
    is `num_pairs`.

    senders, receivers: (E,), in the order given. by_receiver, by_sender: the same pairs, grouped. one_way: of
    an undirected graph the first `num_rows` pairs, by receiver; else None.
    """

    senders: Tensor
    receivers: Tensor
    by_receiver: Csr
    by_sender: Csr
    one_way: Csr | None = None

    @property
    def num_pairs(self) -> int:
        return self.senders.shape[0]

    @property
    def num_rows(self) -> int:
        """Pairs without those that are reversals of others."""
        return self.num_pairs if self.one_way is None else self.one_way.rows.shape[0]

    @property
    def num_senders(self) -> int:
        return self.by_sender.offsets.shape[0] - 1

    @property
    def num_receivers(self) -> int:
        return self.by_receiver.offsets.shape[0] - 1

    @property
    def device(self) -> torch.device:
        return self.senders.device

    def __repr__(self) -> str:
        return (
            f"Graph({self.num_pairs} pairs, {self.num_senders} senders, {self.num_receivers} receivers, "
            f"{self.device})"
        )

    # ---- ways to make one --------------------------------------------------------------------------------

    @classmethod
    def from_pairs(
        cls,
        senders: Tensor,
        receivers: Tensor,
        num_points: int | None = None,
        *,
        num_senders: int | None = None,
        num_receivers: int | None = None,
    ) -> Graph:
        """From the two ends of every pair.

        Args:
            senders, receivers: (E,), of any integer type, in any order. A pair may occur more than once, and
                a point may send to itself.
            num_points: of both sides; where they differ, give `num_senders` and `num_receivers` instead.

        Raises:
            ValueError: a sentence that names the first entry out of range, or what else is wrong.
        """
        senders_count, receivers_count = _counts(num_points, num_senders, num_receivers)
        senders = _indices("senders", senders, senders_count, "senders")
        receivers = _indices("receivers", receivers, receivers_count, "receivers")
        require(
            senders.shape == receivers.shape,
            lambda: (
                f"Graph: senders and receivers must be as many, but are {senders.shape[0]} and "
                f"{receivers.shape[0]}"
            ),
        )
        require(
            senders.device == receivers.device,
            lambda: (
                f"Graph: receivers must be on the device of senders, {senders.device}, but is on "
                f"{receivers.device}"
            ),
        )
        return cls._build(senders, receivers, senders_count, receivers_count)

    @classmethod
    def from_csr(cls, offsets: Tensor, senders: Tensor, num_senders: int | None = None) -> Graph:
        """From pairs in groups by receiver.

        Args:
            offsets: (R + 1,), of any integer type. Receiver r has pairs offsets[r] … offsets[r + 1] - 1.
            senders: (E,), of any integer type, in any order within a group.
            num_senders: absent: as many as receivers, R.
        """
        ends, senders = _integers("offsets", offsets), _integers("senders", senders)
        require(
            offsets.shape[0] > 0,
            lambda: "Graph: offsets must have an entry more than there are receivers, but is empty",
        )
        wrong = ends.diff(prepend=ends.new_zeros(1)) < 0
        if bool(wrong.any()):
            i = _first(wrong)
            before = f"offsets[{i - 1}], {int(ends[i - 1])}" if i else "0"
            raise ValueError(
                f"Graph: offsets must not fall, but offsets[{i}] is {int(ends[i])}, less than {before}"
            )
        require(
            int(ends[0]) == 0, lambda: f"Graph: offsets must begin with 0, but begins with {int(ends[0])}"
        )
        require(
            int(ends[-1]) == senders.shape[0],
            lambda: (
                f"Graph: offsets must end with the number of senders' entries, {senders.shape[0]}, but ends "
                f"with {int(ends[-1])}"
            ),
        )
        count = offsets.shape[0] - 1
        receivers = torch.repeat_interleave(ends.diff())
        return cls.from_pairs(
            senders, receivers, num_senders=count if num_senders is None else num_senders, num_receivers=count
        )

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        num_points: int | None = None,
        *,
        flow: str,
        num_senders: int | None = None,
        num_receivers: int | None = None,
    ) -> Graph:
        """From the (2, E) tensor of torch_geometric.

        Args:
            edge_index: (2, E): sources, then targets.
            flow: "source_to_target" (that library's default: sources send) or "target_to_source".
        """
        require(flow in _FLOWS, lambda: f"Graph: flow must be {' or '.join(_FLOWS)}, but is {flow}")
        require(
            edge_index.dim() == 2 and edge_index.shape[0] == 2,
            lambda: f"Graph: edge_index must be (2, E), but has shape {tuple(edge_index.shape)}",
        )
        source, target = edge_index.unbind()
        senders, receivers = (source, target) if flow == _FLOWS[0] else (target, source)
        return cls.from_pairs(
            senders, receivers, num_points, num_senders=num_senders, num_receivers=num_receivers
        )

    @classmethod
    def undirected(
        cls, senders: Tensor, receivers: Tensor, num_points: int, *, self_loops: bool = False
    ) -> Graph:
        """From pairs that all go both ways, each given once.

        The E pairs are those given, then the self-loops, then those given the other way round: the first
        `num_rows` of them have one row in an antipodal basis of :func:`pair_message`.

        Args:
            senders, receivers: (U,), the ends of each pair, of any integer type, in any order. A point that
                is paired with itself, as with its image in a periodic cell, sends to itself twice.
            num_points: of both sides.
            self_loops: whether every point sends to itself as well, once.

        Raises:
            ValueError: a sentence that names the first entry out of range, or what else is wrong.
        """
        given = cls.from_pairs(senders, receivers, num_points)
        ends = given.senders, given.receivers
        loops = torch.arange(num_points if self_loops else 0, device=given.device)
        sending, receiving = (torch.cat((one, loops, other)) for one, other in (ends, ends[::-1]))
        both_ways = cls._build(sending, receiving, num_points, num_points)
        return dataclasses.replace(both_ways, one_way=both_ways._one_way(len(ends[0]) + len(loops)))

    @classmethod
    def complete(
        cls,
        sizes: Sequence[int] | Tensor,
        *,
        self_loops: bool = True,
        undirected: bool = False,
        device: torch.device | str | None = None,
    ) -> Graph:
        """Every point of a cloud sends to every point of the same cloud.

        sizes: (clouds,), how many points each has; the clouds' points follow one another.
        self_loops: whether a point sends to itself.
        undirected: whether pairs stand as :meth:`undirected` has them, or by receiver.
        """
        counts = torch.as_tensor(sizes, device=device)
        if not counts.numel():
            counts = counts.long()
        counts = _integers("sizes", counts)
        if counts.numel() and int(counts.min()) < 0:
            i = _first(counts < 0)
            raise ValueError(f"Graph: sizes must not be negative, but sizes[{i}] is {int(counts[i])}")
        first = counts.cumsum(0) - counts  # of each cloud's points
        cloud = torch.repeat_interleave(counts)  # of each receiver
        degree = counts[cloud]
        receivers = torch.repeat_interleave(degree)
        before = (degree.cumsum(0) - degree)[receivers]  # pairs before those of this receiver
        senders = torch.arange(receivers.shape[0], device=counts.device) - before + first[cloud][receivers]
        num_points = int(counts.sum())
        _check_count("points", num_points)
        if undirected:
            once = senders < receivers
            return cls.undirected(senders[once], receivers[once], num_points, self_loops=self_loops)
        if not self_loops:
            others = senders != receivers
            senders, receivers = senders[others], receivers[others]
        return cls._build(senders, receivers, num_points, num_points)

    @staticmethod
    def batch(graphs: Sequence[Graph]) -> Graph:
        """One graph of several, whose points and pairs follow one another, and which is not `undirected`."""
        require(len(graphs) > 0, lambda: "Graph: graphs must hold at least one graph, but is empty")
        for i, graph in enumerate(graphs):
            if graph.device != graphs[0].device:
                raise ValueError(
                    f"Graph: graphs must be on the device of graphs[0], {graphs[0].device}, but "
                    f"graphs[{i}] is on {graph.device}"
                )
        before_senders = _running([graph.num_senders for graph in graphs])
        before_receivers = _running([graph.num_receivers for graph in graphs])
        before_pairs = _running([graph.num_pairs for graph in graphs])
        _check_count("senders", before_senders[-1])
        _check_count("receivers", before_receivers[-1])
        index = _index_dtype(before_pairs[-1])

        def joined(groups: Sequence[Csr], before_neighbours: Sequence[int]) -> Csr:
            offsets = [csr.offsets[:-1] + pairs for csr, pairs in zip(groups, before_pairs, strict=False)]
            last = groups[-1].offsets[-1:] + before_pairs[-2]
            return Csr(
                torch.cat([*offsets, last]),
                torch.cat([c.neighbours + b for c, b in zip(groups, before_neighbours, strict=False)]),
                torch.cat([c.rows + b for c, b in zip(groups, before_pairs, strict=False)]),
            )

        by_receiver = [Csr(*(t.to(index) for t in graph.by_receiver)) for graph in graphs]
        by_sender = [Csr(*(t.to(index) for t in graph.by_sender)) for graph in graphs]
        return Graph(
            torch.cat([g.senders + b for g, b in zip(graphs, before_senders, strict=False)]),
            torch.cat([g.receivers + b for g, b in zip(graphs, before_receivers, strict=False)]),
            joined(by_receiver, before_senders),
            joined(by_sender, before_receivers),
        )

    # ---- graphs from a graph -------------------------------------------------------------------------------

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Graph:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return Graph(
            moved(self.senders),
            moved(self.receivers),
            Csr(*map(moved, self.by_receiver)),
            Csr(*map(moved, self.by_sender)),
            None if self.one_way is None else Csr(*map(moved, self.one_way)),
        )

    def transposed(self) -> Graph:
        """With senders and receivers exchanged."""
        graph = Graph(self.receivers, self.senders, self.by_sender, self.by_receiver)
        if self.one_way is None:
            return graph
        return dataclasses.replace(graph, one_way=graph._one_way(self.num_rows))

    def _one_way(self, rows: int) -> Csr:
        """So many of the first pairs, by receiver."""
        return _grouped(
            self.receivers[:rows], self.senders[:rows],
            self.num_receivers, self.num_senders, self.by_receiver.rows.dtype,
        )  # fmt: skip

    @classmethod
    def _build(cls, senders: Tensor, receivers: Tensor, num_senders: int, num_receivers: int) -> Graph:
        """From int64 indices that are known to be in range."""
        index = _index_dtype(senders.shape[0])
        by_receiver = _grouped(receivers, senders, num_receivers, num_senders, index)
        by_sender = _grouped(senders, receivers, num_senders, num_receivers, index)
        return cls(senders, receivers, by_receiver, by_sender)


torch.export.register_dataclass(Graph, serialized_type_name="equiconv.Graph")
_register_namedtuple(Csr, serialized_type_name="equiconv.Csr")
torch.serialization.add_safe_globals([Graph, Csr])  # tensors and nothing else


# ---- construction ------------------------------------------------------------------------------------------


def _grouped(group: Tensor, neighbour: Tensor, groups: int, neighbours: int, index: torch.dtype) -> Csr:
    rows = torch.argsort(group * neighbours + neighbour, stable=True)
    offsets = torch.zeros(groups + 1, dtype=torch.long, device=group.device)
    torch.cumsum(torch.bincount(group, minlength=groups), 0, out=offsets[1:])
    return Csr(offsets.to(index), neighbour[rows].to(index), rows.to(index))


def _index_dtype(pairs: int) -> torch.dtype:
    return torch.int32 if pairs < 2**31 else torch.int64


def _running(counts: Sequence[int]) -> list[int]:
    """0 and the running sums."""
    return list(itertools.accumulate(counts, initial=0))


# ---- checks ------------------------------------------------------------------------------------------------


def _counts(num_points: int | None, num_senders: int | None, num_receivers: int | None) -> tuple[int, int]:
    given = num_points is not None
    sides = num_senders is not None, num_receivers is not None
    require(
        sides == (not given, not given),
        lambda: "Graph: give num_points, or both num_senders and num_receivers, and nothing else",
    )
    senders, receivers = (num_points, num_points) if given else (num_senders, num_receivers)
    assert senders is not None
    assert receivers is not None
    _check_count("points" if given else "senders", senders)
    _check_count("points" if given else "receivers", receivers)
    return senders, receivers


def _check_count(what: str, count: int) -> None:
    require(
        0 <= count <= _MOST_POINTS,
        lambda: f"Graph: num_{what} must be 0 to {_MOST_POINTS}, but is {count}",
    )


def _integers(name: str, index: Tensor) -> Tensor:
    """As int64."""
    fits = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
    require(fits, lambda: f"Graph: {name} must be of an integer type, but is {text(index.dtype)}")
    require(index.dim() == 1, lambda: f"Graph: {name} must have one axis, but has shape {tuple(index.shape)}")
    whole = index.long()
    if index.dtype == torch.uint64 and bool((whole < 0).any()):
        i = _first(whole < 0)
        raise ValueError(f"Graph: {name} must be less than 2**63, but {name}[{i}] is {int(whole[i]) + 2**64}")
    return whole


def _indices(name: str, index: Tensor, count: int, points: str) -> Tensor:
    index = _integers(name, index)
    wrong = (index < 0) | (index >= count)
    if bool(wrong.any()):
        i = _first(wrong)
        rule = f"0 to {count - 1}" if count else f"empty where there are no {points}"
        raise ValueError(f"Graph: {name} must be {rule}, but {name}[{i}] is {int(index[i])}")
    return index


def _first(wrong: Tensor) -> int:
    return int(wrong.nonzero()[0])
