"""One contestant learns where the particles will be.

    python -m equiconv.demo.nbody.train torch '{"seconds": 60, ...}'

prints one JSON object a line: a measurement, again and again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from equiconv import Graph, geometry

from .. import ponita
from ..fit import fit
from ..ponita import PonitaSettings
from .simulate import PARTICLES, Trajectories, load

Settings = PonitaSettings


def make(contestant: str, settings: Settings) -> nn.Module:
    return ponita.make(contestant, settings, input_dim=2, output_dim=0, output_dim_vec=1, task_level="node")


def predict(model: nn.Module, data: Trajectories, graph: Graph) -> Tensor:
    """Positions one unit of time later, (B, 5, 3)."""
    charges, positions, velocities, _ = (tensor.flatten(0, 1) for tensor in data.tensors)
    _, displacement = model(positions, graph, x=charges, vec=velocities[:, None])
    predicted: Tensor = data.positions + displacement.view_as(data.positions)
    return predicted


def train(model: nn.Module, data: dict[str, Trajectories], settings: Settings) -> Iterator[dict[str, float]]:
    """Measurements of mean squared errors."""
    graphs: dict[int, Graph] = {}

    def graph(size: int) -> Graph:
        if size not in graphs:
            graphs[size] = Graph.complete([PARTICLES] * size).to(settings.device)
        return graphs[size]

    @torch.no_grad()
    def error(part: str) -> float:
        whole, squared = data[part], 0.0
        for start in range(0, len(whole), 500):
            some = whole[start : start + 500]
            squared += (predict(model, some, graph(len(some))) - some.targets).square().mean().item() * len(
                some
            )
        return squared / len(whole)

    def loss(which: Tensor, random: torch.Generator) -> Tensor:
        some = turned(training[which.to(settings.device)], random)
        return (predict(model, some, graph(len(some))) - some.targets).square().mean()

    training = data["training"]
    return fit(
        model, len(training), loss, lambda: {part: error(part) for part in ("validation", "test")}, settings
    )


def turned(data: Trajectories, random: torch.Generator) -> Trajectories:
    """Each trajectory by a random rotation of its own."""
    rotations = geometry.random_rotations(len(data), generator=random).to(data.positions.device)
    moved = (t @ rotations for t in (data.positions, data.velocities, data.targets))
    return Trajectories(data.charges, *moved)


def main(contestant: str, text: str) -> None:
    settings = Settings(**json.loads(text))
    torch.set_num_threads(settings.threads)
    data = {name: part.to(settings.device) for name, part in load().items()}
    model = make(contestant, settings).to(settings.device)
    for measurement in train(model, data, settings):
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
