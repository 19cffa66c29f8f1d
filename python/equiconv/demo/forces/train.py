"""One contestant learns energies and forces, and then moves the cluster by them.

    python -m equiconv.demo.forces.train torch '{"seconds": 60, ...}'

prints one JSON object a line: a measurement, again and again; the last one has the dynamics too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equiconv import Graph, geometry

from .. import ponita
from ..fit import fit
from ..ponita import PonitaSettings
from .data import Frames, load
from .dynamics import move


@dataclass(frozen=True, kw_only=True)
class Settings(PonitaSettings):
    batch: int = 5
    learning_rate: float = 4e-3
    warm_up: int = 20
    measurements: int = 20
    layers: int = 2
    steps: int = 1000  # of the dynamics


BOND = 2.5  # Å: distances are measured in about that of neighbours, so that their powers are of order one


def make(contestant: str, settings: Settings) -> nn.Module:
    """Smooth attributes: the published ones have a kink, at which forces jump."""
    return ponita.make(contestant, settings, input_dim=1, output_dim=1, smooth=True)


def predict(model: nn.Module, positions: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
    """Energies (F,) and forces (F, N, 3) of frames, in units of their own."""
    frames, atoms, _ = positions.shape
    with torch.enable_grad():
        flat = positions.flatten(0, 1).requires_grad_()
        energies, _ = model(
            flat / BOND,
            Graph.complete([atoms] * frames),
            x=flat.new_ones(len(flat), 1),
            batch=torch.arange(frames).repeat_interleave(atoms),
            num_graphs=frames,
        )
        (gradient,) = torch.autograd.grad(energies.sum(), flat, create_graph=training)
    return energies.squeeze(1), -gradient.view_as(positions)


def train(
    model: nn.Module, data: dict[str, Frames], settings: Settings
) -> Iterator[dict[str, float | list[float]]]:
    """Measurements of mean absolute errors: forces in eV/Å (validation, test), energies in eV an atom."""
    training = data["training"]
    middle, unit = training.energies.mean(), training.forces.std()  # energies in eV/Å · Å

    def errors(part: str) -> tuple[float, float]:
        whole = data[part]
        energies, forces = predict(model, whole.positions, training=False)
        off = (energies * unit + middle - whole.energies) / whole.positions.shape[1]
        return (forces * unit - whole.forces).abs().mean().item(), off.abs().mean().item()

    def measure() -> dict[str, float]:
        force, energy = errors("test")
        return {"validation": errors("validation")[0], "test": force, "energy": energy}

    def loss(which: Tensor, random: torch.Generator) -> Tensor:
        some = training[which]
        rotations = geometry.random_rotations(len(some), generator=random)
        energies, forces = predict(model, some.positions @ rotations, training=True)
        atoms = some.positions.shape[1]
        wrong_energies = (energies - (some.energies - middle) / unit).square().mean() / atoms
        return wrong_energies + (forces - some.forces @ rotations / unit).square().mean()

    last: dict[str, float] = {}
    for measurement in fit(model, len(training), loss, measure, settings):
        if last:
            yield dict(last)
        last = measurement

    def energy_and_forces(positions: Tensor) -> tuple[float, Tensor]:
        energies, forces = predict(model, positions[None].float(), training=False)
        return (energies[0] * unit).item(), (forces[0] * unit).double()

    yield {**last, "total": move(energy_and_forces, settings.steps, settings.seed)}


def main(contestant: str, text: str) -> None:
    settings = Settings(**json.loads(text))
    torch.set_num_threads(settings.threads)
    for measurement in train(make(contestant, settings), load(), settings):
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
