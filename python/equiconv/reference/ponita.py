"""PONITA as published, in plain PyTorch: every filter and every message is a tensor of its own.

What :class:`equiconv.nn.Ponita` is compared with, in tests, in benchmarks and in the demo. Parameters have
the same names, so ``load_state_dict`` takes them from one to the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import circle, lift, polynomial_cutoff, project, repulsion_sphere
from ..graph import Graph
from .pair_invariants import fibre_invariants, pair_invariants

__all__ = ["Ponita"]


class PolynomialFeatures(nn.Module):
    """All products of up to `degree` attributes, in every order."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, attributes: Tensor) -> Tensor:
        features = [attributes]
        for _ in range(self.degree - 1):
            features.append((features[-1][..., :, None] * attributes[..., None, :]).flatten(-2))
        return torch.cat(features, -1)


class FiberBundleConv(nn.Module):
    """The separable depthwise convolution."""

    callibrated: Tensor

    def __init__(self, channels: int, basis_dim: int) -> None:
        super().__init__()
        self.kernel = nn.Linear(basis_dim, channels, bias=False)
        self.fiber_kernel = nn.Linear(basis_dim, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("callibrated", torch.tensor(False))

    def forward(self, x: Tensor, basis: Tensor, fibre_basis: Tensor, graph: Graph) -> Tensor:
        message = self.kernel(basis) * x[graph.senders]
        y = torch.zeros_like(x).index_add(0, graph.receivers, message)
        filter = self.fiber_kernel(fibre_basis)
        out: Tensor = torch.einsum("noc,opc->npc", y, filter) / filter.shape[0]
        if self.training and not self.callibrated:
            with torch.no_grad():
                self.kernel.weight.data = self.kernel.weight * (x.std() / y.std())
                self.fiber_kernel.weight.data = self.fiber_kernel.weight * (y.std() / out.std())
                self.callibrated.fill_(True)
        return out + self.bias


class ConvNext(nn.Module):
    def __init__(
        self, channels: int, basis_dim: int, layer_scale: float | None, widening_factor: int
    ) -> None:
        super().__init__()
        self.conv = FiberBundleConv(channels, basis_dim)
        self.norm = nn.LayerNorm(channels)
        self.linear_1 = nn.Linear(channels, widening_factor * channels)
        self.linear_2 = nn.Linear(widening_factor * channels, channels)
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor, basis: Tensor, fibre_basis: Tensor, graph: Graph) -> Tensor:
        y: Tensor = self.conv(x, basis, fibre_basis, graph)
        y = self.linear_2(F.gelu(self.linear_1(self.norm(y))))
        return x + (y if self.layer_scale is None else self.layer_scale * y)


class Ponita(nn.Module):
    """The bundle model, with the arguments of :class:`equiconv.nn.Ponita` that it knows."""

    ori_grid: Tensor

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
        *,
        dim: int = 3,
        grid: Tensor | None = None,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.output_dims = (output_dim, output_dim_vec)
        self.radius, self.pooled, self.smooth = radius, task_level == "graph", smooth
        if grid is None:
            grid = circle(num_ori) if dim == 2 else repulsion_sphere(num_ori)
        self.register_buffer("ori_grid", grid)
        basis_dim = hidden_dim if basis_dim is None else basis_dim
        self.basis_fn, self.fiber_basis_fn = (
            nn.Sequential(
                PolynomialFeatures(degree),
                nn.Linear(sum(attributes**d for d in range(1, degree + 1)), hidden_dim),
                nn.GELU(),
                nn.Linear(hidden_dim, basis_dim),
                nn.GELU(),
            )
            for attributes in (2, 1)
        )
        self.x_embedder = nn.Linear(input_dim, hidden_dim, bias=False)
        self.interaction_layers = nn.ModuleList(
            ConvNext(hidden_dim, basis_dim, layer_scale, widening_factor) for _ in range(num_layers)
        )
        self.read_out_layers = nn.ModuleList(
            nn.Linear(hidden_dim, output_dim + output_dim_vec) for _ in range(num_layers)
        )

    def forward(
        self,
        pos: Tensor,
        graph: Graph,
        *,
        x: Tensor | None = None,
        vec: Tensor | None = None,
        batch: Tensor | None = None,
        num_graphs: int = 1,
    ) -> tuple[Tensor, Tensor]:
        grid = self.ori_grid
        rel = pos[graph.senders] - pos[graph.receivers]
        basis = self.basis_fn(pair_invariants(rel, grid, smooth=self.smooth))
        if self.radius is not None:
            basis = basis * polynomial_cutoff(pair_invariants(rel), self.radius)[:, None]
        fibre_basis = self.fiber_basis_fn(fibre_invariants(grid))
        values = self.x_embedder(lift(x, vec, grid))
        read = []
        for layer, read_out in zip(self.interaction_layers, self.read_out_layers, strict=True):
            values = layer(values, basis, fibre_basis, graph)
            read.append(read_out(values))
        scalars, vectors = (sum(read[1:], read[0]) / len(read)).split(self.output_dims, -1)
        scalars, vectors = scalars.mean(1), project(vectors, grid)
        if self.pooled:
            if batch is None:
                batch = torch.zeros(len(pos), dtype=torch.int64, device=pos.device)
            scalars = scalars.new_zeros(num_graphs, scalars.shape[1]).index_add(0, batch, scalars)
            vectors = vectors.new_zeros(num_graphs, *vectors.shape[1:]).index_add(0, batch, vectors)
        return scalars, vectors
