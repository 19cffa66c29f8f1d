"""A copper cluster that moves: positions, energies and forces of its dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import cache

ATOMS = 13  # an icosahedron: one atom and its twelve neighbours
TEMPERATURE = 600.0  # kelvin
TIME_STEP = 5.0  # femtoseconds
WARM_UP = 500  # steps before the first frame
EVERY = 10  # steps between two frames
VERSION = 1  # of the cached files; to be raised when what is simulated changes
PARTS = {"training": 400, "validation": 100, "test": 200}  # frames


@dataclass(frozen=True)
class Frames:
    """positions, forces: (F, N, 3), in Å and eV/Å. energies: (F,), in eV."""

    positions: Tensor
    energies: Tensor
    forces: Tensor

    def __len__(self) -> int:
        return len(self.energies)

    def __getitem__(self, which: Tensor) -> Frames:
        return Frames(self.positions[which], self.energies[which], self.forces[which])


def cluster() -> Any:
    """The cluster at rest, as ase.Atoms with the calculator that is to be learned."""
    from ase.calculators.emt import EMT
    from ase.cluster import Icosahedron

    atoms = Icosahedron("Cu", 2)
    assert len(atoms) == ATOMS
    atoms.calc = EMT()
    return atoms


def load(seed: int = 0) -> dict[str, Frames]:
    """Every part, from the user's cache or simulated (half a minute) and put there."""

    def made() -> list[Tensor]:
        return [t for part in simulate(seed).values() for t in (part.positions, part.energies, part.forces)]

    tensors = iter(cache.kept(f"copper-v{VERSION}-{seed}", made))
    return {name: Frames(next(tensors), next(tensors), next(tensors)) for name in PARTS}


def simulate(seed: int) -> dict[str, Frames]:
    """Each part is a trajectory of its own, at a temperature held by a Langevin thermostat."""
    import numpy as np
    from ase import units
    from ase.md.langevin import Langevin

    parts = {}
    for i, (name, count) in enumerate(PARTS.items()):
        random = np.random.RandomState(seed + i)
        atoms = cluster()
        spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * TEMPERATURE)
        atoms.set_momenta(spread * random.randn(len(atoms), 3))
        dynamics = Langevin(
            atoms,
            TIME_STEP * units.fs,
            temperature_K=TEMPERATURE,
            friction=0.01 / units.fs,
            fixcm=False,
            rng=random,
        )
        dynamics.run(WARM_UP)
        frames = []
        for _ in range(count):
            dynamics.run(EVERY)
            frames.append((atoms.positions.copy(), atoms.get_potential_energy(), atoms.get_forces()))
        positions, energies, forces = (torch.tensor(np.array(t)).float() for t in zip(*frames, strict=True))
        parts[name] = Frames(positions - positions.mean(1, keepdim=True), energies, forces)
    return parts
