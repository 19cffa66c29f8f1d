"""PONITA: a network on point clouds that is equivariant by its filters' invariance."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..geometry import (
    EdgeCloud,
    antipodes,
    circle,
    edge_cloud,
    lift,
    polynomial_cutoff,
    project,
    repulsion_sphere,
)
from ..graph import Graph
from ..ops.check import check_floating, require, text
from ..ops.pair_basis import BasisNetwork
from ..ops.pair_invariants import fibre_invariants, pair_invariants
from .basis import FilterBasis
from .conv import FiberBundleConv, PointCloudConv
from .convnext import ConvNext

TASKS = ("graph", "node")


class Ponita(nn.Module):
    """The model of Bekkers et al., for tasks on graphs or nodes, with scalars and vectors in and out.

    With ``num_ori > 0`` every point has the same grid of orientations (a bundle). Else points are as they
    are, seen through their distances; or, with ``lift_graph=True``, every pair becomes a point that looks
    along it (a cloud of positions and orientations, equivariant under all rotations exactly).

    Args:
        input_dim: scalars plus vectors of each point.
        hidden_dim: C, channels.
        output_dim: scalars out.
        num_layers: L.
        output_dim_vec: vectors out.
        radius: where the filters' smooth cut-off ends; None: none.
        num_ori: O, for a bundle; 0 or less: no grid.
        basis_dim: K; None: `hidden_dim`.
        degree: the highest total degree of the attributes' monomials.
        widening_factor, layer_scale: of :class:`ConvNext`.
        task_level: "graph" or "node": whether outputs are summed over each graph's points.
        multiple_readouts: whether outputs are averaged over the layers' or are the last one's.
        lift_graph: see above.
        dim: n, 2 or 3 (with distances alone, any).
        grid: (O, n), instead of the default, which is :func:`repulsion_sphere` or :func:`circle`. The
            rotations that leave it as it is are exact symmetries; others are approximate unless it turns
            along (`rotations` in :meth:`forward`).
        complete, smooth: of :func:`equiconv.pair_invariants`. Kinks in forces vanish with ``smooth=True``.
        extra_dim: how many further invariants each pair comes with.
        recompute: whether every layer computes the basis functions of its pairs anew, where they are needed,
            instead of keeping them in memory, K numbers for each pair and orientation.

    Where the graph is undirected (:meth:`equiconv.Graph.undirected`) and every orientation of the grid has
    its opposite there, or points have none, one row of the basis serves both directions of a pair: half the
    basis network, half its memory.

    The names of parameters are those of the published model, whose checkpoints load; its grid is not in them,
    and of those made with a random grid the outputs are reproduced only with that grid. Its `degree` counts
    from one less in the repository ponita-torch (2 there is 3 here).

    arXiv:2310.02970.
    """

    ori_grid: Tensor | None
    antipode: Tensor | None

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        output_dim_vec: int = 0,
        radius: float | None = None,
        num_ori: int = 20,
        basis_dim: int | None = None,
        degree: int = 3,
        widening_factor: int = 4,
        layer_scale: float | None = None,
        task_level: str = "graph",
        multiple_readouts: bool = True,
        lift_graph: bool = False,
        *,
        dim: int = 3,
        grid: Tensor | None = None,
        complete: bool = False,
        smooth: bool = False,
        extra_dim: int = 0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        require(
            task_level in TASKS,
            lambda: f"{_MODEL}: task_level must be graph or node, but is {task_level}",
        )
        require(num_layers >= 1, lambda: f"{_MODEL}: num_layers must be at least 1, but is {num_layers}")
        bundle = num_ori > 0
        oriented = bundle or lift_graph
        require(dim in (2, 3) or not oriented, lambda: f"{_MODEL}: dim must be 2 or 3, but is {dim}")
        require(
            oriented or output_dim_vec == 0,
            lambda: (
                f"{_MODEL}: output_dim_vec must be 0 where there are no orientations, but is {output_dim_vec}"
            ),
        )
        self.input_dim, self.dim, self.degree, self.extra_dim = input_dim, dim, degree, extra_dim
        self.output_dim, self.output_dim_vec = output_dim, output_dim_vec
        self.radius, self.complete, self.smooth = radius, complete, smooth
        self.recompute = recompute
        self.pooled = task_level == "graph"
        self.bundle, self.oriented = bundle, oriented
        self.register_buffer("antipode", None, persistent=False)
        self.register_buffer("ori_grid", None)
        self.ori_grid = _grid(grid, num_ori, dim) if bundle else None
        if not oriented:
            self.antipode = torch.zeros(1, dtype=torch.int64)

        basis_dim = hidden_dim if basis_dim is None else basis_dim
        of_orientations = 2 if complete and (dim == 2 or not bundle) else 1
        attributes = (2 if bundle else 2 + of_orientations if oriented else 1) + extra_dim
        self.basis_fn = FilterBasis(attributes, hidden_dim, basis_dim, degree)
        if bundle:
            self.fiber_basis_fn = FilterBasis(of_orientations, hidden_dim, basis_dim, degree)
        self.x_embedder = nn.Linear(input_dim, hidden_dim, bias=False)
        self.interaction_layers = nn.ModuleList()
        self.read_out_layers = nn.ModuleDict()  # by the number of the layer
        for i in range(num_layers):
            kind = FiberBundleConv if bundle else PointCloudConv
            conv = kind(hidden_dim, hidden_dim, basis_dim, groups=hidden_dim)
            self.interaction_layers.append(
                ConvNext(hidden_dim, conv, layer_scale=layer_scale, widening_factor=widening_factor)
            )
            if multiple_readouts or i == num_layers - 1:
                self.read_out_layers[str(i)] = nn.Linear(hidden_dim, output_dim + output_dim_vec)

    def forward(
        self,
        pos: Any,
        graph: Graph | EdgeCloud | None = None,
        *,
        x: Tensor | None = None,
        vec: Tensor | None = None,
        batch: Tensor | None = None,
        num_graphs: int | None = None,
        shifts: Tensor | None = None,
        extra: Tensor | None = None,
        rotations: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Scalars (G, output_dim) and vectors (G, output_dim_vec, n), or (N, …) of a node task.

        Either is None where there is none of its kind.

        Args:
            pos: (N, n). Or, as the only argument, an object with `pos`, `edge_index` (source to target)
                and, where there are any, `x`, `vec`, `batch` and `num_graphs`, as torch_geometric's Data;
                every point then also sends to itself, and repeated pairs count once, as in the published
                model.
            graph: which points send to which, used as it is. With ``lift_graph=True`` an :class:`EdgeCloud`
                too, which saves making one.
            x: (N, S), scalars.
            vec: (N, V, n), vectors; S + V is `input_dim`.
            batch: (N,) of int64, the graph of each point; None: all are of one graph.
            num_graphs: G; to be given beside `batch`.
            shifts: (E, n), added to the sender's position in each pair, for periodic boundaries.
            extra: (E, extra_dim), further invariants of each pair. Of an undirected graph both directions of
                a pair have the same, and the opposite shift: what is given of reversed pairs may be unread.
            rotations: (G, n, n), how each graph's grid is turned.

        Raises:
            ValueError: an argument breaks one of the rules above; the sentence names it and its value.
        """
        if graph is None:
            return self.forward(**_unpacked(pos, once=self.antipode is not None))
        self._check(pos, graph, x, vec, batch, num_graphs, shifts, extra, rotations)
        if rotations is not None and batch is None:
            batch, num_graphs = torch.zeros(len(pos), dtype=torch.int64, device=pos.device), 1
        if self.bundle:
            assert isinstance(graph, Graph)
            scalars, vectors = self._on_bundle(pos, graph, x, vec, batch, shifts, extra, rotations)
        else:
            scalars, vectors = self._on_cloud(pos, graph, x, vec, shifts, extra)
        return (
            self._out(scalars, self.output_dim, batch, num_graphs),
            self._out(vectors, self.output_dim_vec, batch, num_graphs),
        )

    def _on_bundle(
        self,
        pos: Tensor,
        graph: Graph,
        x: Tensor | None,
        vec: Tensor | None,
        batch: Tensor | None,
        shifts: Tensor | None,
        extra: Tensor | None,
        rotations: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        grid = self.ori_grid
        assert grid is not None
        antipode, pairs = self._one_row_for_both(graph)
        rel, extra = _relative(pos, graph, shifts, pairs), None if extra is None else extra[:pairs]
        if rotations is not None:  # turning the grid is turning everything else back
            turn = rotations[batch]
            rel = (rel[:, None] @ turn[graph.receivers[:pairs]]).squeeze(1)
            vec = None if vec is None else vec @ turn
        features = pair_invariants(rel, grid, smooth=self.smooth, extra=extra, degree=self.degree)
        basis = self._basis(features, rel)
        fibre_basis = self.fiber_basis_fn(fibre_invariants(grid, complete=self.complete, degree=self.degree))
        values = self._layers(self.x_embedder(lift(x, vec, grid)), basis, fibre_basis, graph, antipode)
        vectors = project(values[..., self.output_dim :], grid)
        return values[..., : self.output_dim].mean(1), vectors if rotations is None else vectors @ turn.mT

    def _on_cloud(
        self,
        pos: Tensor,
        graph: Graph | EdgeCloud,
        x: Tensor | None,
        vec: Tensor | None,
        shifts: Tensor | None,
        extra: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        points = len(pos)
        if not self.oriented:
            assert isinstance(graph, Graph)
            assert x is not None
            antipode, pairs = self._one_row_for_both(graph)
            rel, extra = _relative(pos, graph, shifts, pairs), None if extra is None else extra[:pairs]
            features = pair_invariants(rel, extra=extra, degree=self.degree)
            values = self._layers(self.x_embedder(x), self._basis(features, rel), graph, antipode)
            return values, values.new_zeros(points, 0, self.dim)

        cloud = edge_cloud(graph) if isinstance(graph, Graph) else graph
        orientations = cloud.orientations(pos)
        parts = [] if x is None else [x[cloud.base]]
        if vec is not None:
            parts.append((vec[cloud.base] @ orientations[..., None]).squeeze(-1))
        rel = _relative(pos[cloud.base], cloud.graph, shifts, cloud.graph.num_pairs)
        features = pair_invariants(
            rel,
            receiver=orientations[cloud.graph.receivers],
            sender=orientations[cloud.graph.senders],
            complete=self.complete,
            smooth=self.smooth,
            extra=extra,
            degree=self.degree,
        )
        values = self.x_embedder(torch.cat(parts, -1))
        values = self._layers(values, self._basis(features, rel), cloud.graph)
        vectors = values[:, self.output_dim :, None] * orientations[:, None]
        count = torch.zeros(points, dtype=pos.dtype, device=pos.device)
        count = count.index_add(0, cloud.base, torch.ones_like(values[:, 0])).clamp_min(1)

        def mean(values: Tensor) -> Tensor:
            summed = values.new_zeros(points, *values.shape[1:]).index_add(0, cloud.base, values)
            return summed / count.view(-1, *[1] * (values.dim() - 1))

        return mean(values[:, : self.output_dim]), mean(vectors)

    def _one_row_for_both(self, graph: Graph) -> tuple[Tensor | None, int]:
        """Antipodes, where a basis row serves both directions of a pair, and how many pairs have a row."""
        if self.antipode is None or graph.one_way is None:
            return None, graph.num_pairs
        return self.antipode, graph.num_rows

    def _basis(self, features: Tensor, rel: Tensor) -> Tensor | BasisNetwork:
        """Of every pair, cut off at the radius."""
        window = None if self.radius is None else polynomial_cutoff(pair_invariants(rel)[:, 0], self.radius)
        if self.recompute:
            return self.basis_fn.network(features, window)
        basis: Tensor = self.basis_fn(features, window)
        return basis

    def _layers(self, x: Tensor, *given: object) -> Tensor:
        """The mean of the layers' read-outs."""
        read = []
        for i, layer in enumerate(self.interaction_layers):
            x = layer(x, *given)
            if str(i) in self.read_out_layers:
                read.append(self.read_out_layers[str(i)](x))
        return torch.stack(read).mean(0)

    def _out(self, values: Tensor, count: int, batch: Tensor | None, num_graphs: int | None) -> Tensor | None:
        if count == 0:
            return None
        if not self.pooled:
            return values
        if batch is None:
            return values.sum(0, keepdim=True)
        assert num_graphs is not None
        return values.new_zeros(num_graphs, *values.shape[1:]).index_add(0, batch, values)

    def _check(
        self,
        pos: Tensor,
        graph: Graph | EdgeCloud,
        x: Tensor | None,
        vec: Tensor | None,
        batch: Tensor | None,
        num_graphs: int | None,
        shifts: Tensor | None,
        extra: Tensor | None,
        rotations: Tensor | None,
    ) -> None:
        def shaped(name: str, tensor: Tensor | None, *shape: int | str) -> None:
            """Letters stand for any size."""
            if tensor is not None:
                fits = tensor.dim() == len(shape) and all(
                    isinstance(want, str) or size == want
                    for size, want in zip(tensor.shape, shape, strict=True)
                )

                def sentence() -> (
                    str
                ):  # only then: sizes may be symbols, which a compiled program cannot write
                    wanted = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
                    return f"{_MODEL}: {name} must have shape {wanted}, but has {tuple(tensor.shape)}"

                require(fits, sentence)

        shaped("pos", pos, "N", self.dim)
        points = len(pos)
        shaped("x", x, points, "S")
        shaped("vec", vec, points, "V", self.dim)
        shaped("batch", batch, points)
        if isinstance(graph, EdgeCloud):
            require(
                self.oriented and not self.bundle,
                lambda: f"{_MODEL}: graph must be a Graph where lift_graph is False, but is an EdgeCloud",
            )
        else:
            require(
                isinstance(graph, Graph),
                lambda: (
                    f"{_MODEL}: graph must be a Graph, as Graph.from_edge_index makes of an edge_index, but "
                    f"is a {type(graph).__name__}"
                ),
            )
            sides = graph.num_senders, graph.num_receivers
            require(
                sides == (points, points),
                lambda: (
                    f"{_MODEL}: graph must have the points of pos, {points}, on both sides, "
                    f"but has {sides[0]} senders and {sides[1]} receivers"
                ),
            )
        if not (self.oriented and not self.bundle):
            assert isinstance(graph, Graph)
            shaped("shifts", shifts, graph.num_pairs, self.dim)
            shaped("extra", extra, graph.num_pairs, self.extra_dim)
        else:
            require(
                shifts is None,
                lambda: f"{_MODEL}: shifts must be absent where lift_graph is True, but is there",
            )
        require(
            (extra is None) == (self.extra_dim == 0),
            lambda: (
                f"{_MODEL}: extra must be {'absent' if self.extra_dim == 0 else 'given'} where extra_dim is "
                f"{self.extra_dim}, but is {'absent' if extra is None else 'there'}"
            ),
        )
        require(
            vec is None or self.oriented,
            lambda: f"{_MODEL}: vec must be absent where there are no orientations, but is there",
        )
        given = (0 if x is None else x.shape[1]) + (0 if vec is None else vec.shape[1])
        require(
            given == self.input_dim,
            lambda: f"{_MODEL}: x and vec must have {self.input_dim} features together, but have {given}",
        )
        floating = self.x_embedder.weight.dtype
        tensors = {"pos": pos, "x": x, "vec": vec, "shifts": shifts, "extra": extra, "rotations": rotations}
        for name, tensor in tensors.items():
            require(
                tensor is None or tensor.dtype == floating or torch.is_autocast_enabled(pos.device.type),
                lambda name=name, tensor=tensor: (  # type: ignore[misc]
                    f"{_MODEL}: {name} must have the dtype of the parameters, {text(floating)}, "
                    f"but has {text(tensor.dtype)}"
                ),
            )
        if batch is not None:
            require(
                batch.dtype == torch.int64,
                lambda: f"{_MODEL}: batch must be int64, but is {text(batch.dtype)}",
            )
            require(
                num_graphs is not None or not self.pooled,
                lambda: f"{_MODEL}: num_graphs must be given beside batch, but is absent",
            )
        if rotations is not None:
            require(
                self.bundle,
                lambda: f"{_MODEL}: rotations must be absent where there is no grid, but is there",
            )
            graphs = (1 if batch is None else "G") if num_graphs is None else num_graphs
            shaped("rotations", rotations, graphs, self.dim, self.dim)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "ori_grid":
            self.antipode = None if value is None else antipodes(value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        grid = f"{prefix}ori_grid"
        if (
            self.ori_grid is not None
            and f"{prefix}x_embedder.weight" in state_dict
            and grid not in state_dict
        ):
            warnings.warn(
                f"{_MODEL}: the checkpoint has no ori_grid, as published ones; the model keeps its own",
                stacklevel=2,
            )
            state_dict[grid] = self.ori_grid
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.ori_grid is not None:
            self.antipode = antipodes(self.ori_grid)


_MODEL = "Ponita"


def _grid(grid: Tensor | None, count: int, dim: int) -> Tensor:
    if grid is None:
        return circle(count) if dim == 2 else repulsion_sphere(count)
    require(
        tuple(grid.shape) == (count, dim),
        lambda: (
            f"{_MODEL}: grid must have shape ({count}, {dim}), num_ori and dim, but has {tuple(grid.shape)}"
        ),
    )
    check_floating(_MODEL, "grid", grid)
    return grid.clone()


def _relative(pos: Tensor, graph: Graph, shifts: Tensor | None, pairs: int) -> Tensor:
    """Of so many of the first pairs."""
    rel = pos[graph.senders[:pairs]] - pos[graph.receivers[:pairs]]
    return rel if shifts is None else rel + shifts[:pairs]


def _unpacked(data: Any, *, once: bool) -> dict[str, Any]:
    """The arguments of forward, of an object such as torch_geometric's Data.

    once: whether the graph is to be an undirected one, if all pairs go both ways.
    """
    for name in ("pos", "edge_index"):
        require(
            getattr(data, name, None) is not None,
            lambda name=name: f"{_MODEL}: graph must be given, or pos be an object that has {name}",  # type: ignore[misc]
        )
    points = len(data.pos)
    everywhere = torch.arange(points, device=data.pos.device)
    source, target = torch.cat((data.edge_index, everywhere.expand(2, -1)), 1)
    pairs = torch.unique(target * points + source)  # sorted, each once
    source, target = pairs % points, pairs // points
    if once and torch.equal(torch.sort(source * points + target).values, pairs):
        one_way = source < target
        graph = Graph.undirected(source[one_way], target[one_way], points, self_loops=True)
    else:
        graph = Graph.from_pairs(source, target, points)
    optional = {name: getattr(data, name, None) for name in ("x", "vec", "batch", "num_graphs")}
    if optional["batch"] is None:
        del optional["num_graphs"]
    return {"pos": data.pos, "graph": graph, **optional}
