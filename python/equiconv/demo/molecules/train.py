"""One contestant learns atomisation energies.

    python -m equiconv.demo.molecules.train torch '{"seconds": 60, ...}'

prints one JSON object a line: a measurement, again and again.
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
from .data import Molecules, by_composition, load, split


@dataclass(frozen=True, kw_only=True)
class Settings(PonitaSettings):
    batch: int = 25
    warm_up: int = 20
    layers: int = 2


RADIUS = 3.0  # Å: bonds and the next atoms. A hundred molecules do not teach what is farther away.


def make(contestant: str, settings: Settings, elements: int) -> nn.Module:
    return ponita.make(contestant, settings, input_dim=elements, output_dim=1, radius=RADIUS, smooth=True)


def predict(model: nn.Module, molecules: Molecules) -> Tensor:
    """What each molecule's energy differs by from what its composition says, (M,)."""
    graph = Graph.complete(molecules.sizes)
    energies, _ = model(
        molecules.positions,
        graph,
        x=molecules.elements,
        batch=molecules.of_molecule,
        num_graphs=len(molecules),
    )
    one_each: Tensor = energies.squeeze(1)
    return one_each


def train(model: nn.Module, data: dict[str, Molecules], settings: Settings) -> Iterator[dict[str, float]]:
    """Measurements of mean absolute errors, in eV; `composition` is that of the composition alone."""
    training = data["training"]
    elements = by_composition(training)
    rest = {name: part.energies - part.composition @ elements for name, part in data.items()}
    scale = rest["training"].std()

    @torch.no_grad()
    def error(part: str) -> float:
        return (predict(model, data[part]) * scale - rest[part]).abs().mean().item()

    def loss(which: Tensor, random: torch.Generator) -> Tensor:
        some = training[which]
        rotations = geometry.random_rotations(len(some), generator=random)
        turned = (some.positions[:, None] @ rotations[some.of_molecule]).squeeze(1)
        off = predict(model, Molecules(some.sizes, some.elements, turned, some.energies))
        return nn.functional.smooth_l1_loss(off, rest["training"][which] / scale)

    def measure() -> dict[str, float]:
        return {
            "validation": error("validation"),
            "test": error("test"),
            "composition": rest["test"].abs().mean().item(),
        }

    return fit(model, len(training), loss, measure, settings)


def main(contestant: str, text: str) -> None:
    settings = Settings(**json.loads(text))
    torch.set_num_threads(settings.threads)
    whole = load()
    model = make(contestant, settings, whole.elements.shape[1])
    for measurement in train(model, split(whole, settings.seed), settings):
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
