"""The cluster moves by given forces, without a thermostat: its total energy should stay what it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .data import TEMPERATURE, TIME_STEP, cluster

EnergyAndForces = Callable[[Tensor], tuple[float, Tensor]]


def move(energy_and_forces: EnergyAndForces, steps: int, seed: int) -> list[float]:
    """The total energy at each step of velocity Verlet, in eV.

    energy_and_forces: of positions (N, 3) in Å: eV, and (N, 3) in eV/Å.
    """
    from ase import units

    atoms = cluster()
    mass = torch.from_numpy(atoms.get_masses())[:, None]
    x = torch.from_numpy(atoms.positions - atoms.positions.mean(0))
    random = torch.Generator().manual_seed(seed)
    v = torch.randn(x.shape, generator=random, dtype=x.dtype) * (units.kB * TEMPERATURE / mass).sqrt()
    v -= v.mean(0)
    step = TIME_STEP * units.fs
    energy, force = energy_and_forces(x)
    total = []
    for _ in range(steps):
        total.append(energy + (0.5 * mass * v.square()).sum().item())
        v = v + 0.5 * step * force / mass
        x = x + step * v
        energy, force = energy_and_forces(x)
        v = v + 0.5 * step * force / mass
    return total


def true_energy_and_forces() -> EnergyAndForces:
    """Those of the calculator from which the data are."""
    atoms = cluster()

    def energy_and_forces(x: Tensor) -> tuple[float, Tensor]:
        atoms.positions = x.numpy()
        return atoms.get_potential_energy(), torch.from_numpy(atoms.get_forces())

    return energy_and_forces
