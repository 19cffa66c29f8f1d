"""One contestant learns where the particles will be.

    python -m equiconv.demo.nbody.train torch '{"seconds": 60, ...}'

prints one JSON object a line: a measurement, again and again.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import equiconv
from equiconv import Graph, geometry
from equiconv.reference import ponita as reference

from .simulate import PARTICLES, Trajectories, load

CONTESTANTS: dict[str, Callable[..., nn.Module]] = {"torch": reference.Ponita, "equiconv": equiconv.nn.Ponita}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """seconds: training time of one contestant, without the measurements."""

    seconds: float
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    batch: int = 100
    channels: int = 32
    functions: int = 64
    orientations: int = 16
    layers: int = 4
    learning_rate: float = 1e-3
    warm_up: int = 100  # steps
    measurements: int = 40


def make(contestant: str, settings: Settings) -> nn.Module:
    """The contestants' models start from the same parameters."""
    sizes: dict[str, Any] = {
        "input_dim": 2,
        "hidden_dim": settings.channels,
        "output_dim": 0,
        "output_dim_vec": 1,
        "num_layers": settings.layers,
        "num_ori": settings.orientations,
        "basis_dim": settings.functions,
        "task_level": "node",
    }
    torch.manual_seed(settings.seed)
    start = reference.Ponita(**sizes)
    if contestant == "torch":
        return start
    model = CONTESTANTS[contestant](**sizes)
    model.load_state_dict(start.state_dict())
    return model


def predict(model: nn.Module, data: Trajectories, graph: Graph) -> Tensor:
    """Positions one unit of time later, (B, 5, 3)."""
    charges, positions, velocities, _ = (tensor.flatten(0, 1) for tensor in data.tensors)
    _, displacement = model(positions, graph, x=charges, vec=velocities[:, None])
    predicted: Tensor = data.positions + displacement.view_as(data.positions)
    return predicted


def train(model: nn.Module, data: dict[str, Trajectories], settings: Settings) -> Iterator[dict[str, float]]:
    """Yield measurements: steps, seconds of training so far, and mean squared errors."""
    graphs: dict[int, Graph] = {}

    def graph(size: int) -> Graph:
        if size not in graphs:
            graphs[size] = Graph.complete([PARTICLES] * size).to(settings.device)
        return graphs[size]

    @torch.no_grad()
    def measure(part: str) -> float:
        model.eval()
        whole, squared = data[part], 0.0
        for start in range(0, len(whole), 500):
            some = whole[start : start + 500]
            squared += (predict(model, some, graph(len(some))) - some.targets).square().mean().item() * len(
                some
            )
        model.train()
        return squared / len(whole)

    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    random = torch.Generator().manual_seed(settings.seed)
    seconds, step, due, losses = 0.0, 0, 1, []
    training = data["training"]
    while seconds < settings.seconds:
        order = torch.randperm(len(training), generator=random)
        for first in range(0, len(training), settings.batch):
            start = time.perf_counter()
            which = order[first : first + settings.batch]
            rate = 0.5 * (1 + math.cos(math.pi * min(seconds / settings.seconds, 1)))
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate * min((step + 1) / settings.warm_up, 1)
            some = turned(training[which.to(settings.device)], random)
            loss = (predict(model, some, graph(len(some))) - some.targets).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.detach())
            if settings.device != "cpu":
                torch.accelerator.synchronize()
            seconds += time.perf_counter() - start
            step += 1
            if seconds >= due * settings.seconds / settings.measurements:
                due = int(seconds * settings.measurements / settings.seconds) + 1
                yield {
                    "steps": step,
                    "seconds": seconds,
                    "training": torch.stack(losses).mean().item(),
                    "validation": measure("validation"),
                    "test": measure("test"),
                }
                losses.clear()
            if seconds >= settings.seconds:
                break


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
