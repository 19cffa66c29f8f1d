"""The 148 molecules of the G2/97 set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PARTS = {"training": 100, "validation": 18, "test": 30}
EV = 0.0433641153  # of one kcal/mol


@dataclass(frozen=True)
class Molecules:
    """sizes: (M,), atoms of each. elements: (N, S), one-hot. positions: (N, 3), in Å. energies: (M,), in eV.

    Atoms of all molecules follow one another.
    """

    sizes: Tensor
    elements: Tensor
    positions: Tensor
    energies: Tensor

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, which: Tensor) -> Molecules:
        first = self.sizes.cumsum(0) - self.sizes
        atoms = torch.cat([torch.arange(int(first[i]), int(first[i] + self.sizes[i])) for i in which])
        return Molecules(self.sizes[which], self.elements[atoms], self.positions[atoms], self.energies[which])

    @property
    def of_molecule(self) -> Tensor:
        """(N,): the molecule of each atom."""
        return torch.repeat_interleave(self.sizes)

    @property
    def composition(self) -> Tensor:
        """(M, S): atoms of each element."""
        counts = self.elements.new_zeros(len(self), self.elements.shape[1])
        return counts.index_add(0, self.of_molecule, self.elements)


def load() -> Molecules:
    """Geometries, and what it takes to part the atoms: measured enthalpies of formation, without vibrations.

    Energy = Σ_atoms ΔH(0 K) − ΔH(molecule, 0 K) + zero-point energy, where the molecule's enthalpy at 0 K is
    that at 298 K less what molecule and elements take up between.
    """
    from ase import Atoms
    from ase.data import g2

    data: dict[str, Any] = g2.data
    molecule_names: list[str] = g2.molecule_names
    atoms = [Atoms(data[name]["symbols"], data[name]["positions"]) for name in molecule_names]
    symbols = sorted({symbol for a in atoms for symbol in a.get_chemical_symbols()})
    energies = []
    for name, molecule in zip(molecule_names, atoms, strict=True):
        elements = [data[symbol] for symbol in molecule.get_chemical_symbols()]
        cold = data[name]["enthalpy"] - data[name]["thermal correction"]
        cold += sum(element["thermal correction"] for element in elements)
        energies.append(sum(element["enthalpy"] for element in elements) - cold + data[name]["ZPE"])
    numbers = [symbols.index(symbol) for a in atoms for symbol in a.get_chemical_symbols()]
    return Molecules(
        sizes=torch.tensor([len(a) for a in atoms]),
        elements=torch.eye(len(symbols))[numbers],
        positions=torch.cat([torch.from_numpy(a.positions) for a in atoms]).float(),
        energies=torch.tensor(energies, dtype=torch.float64).mul(EV).float(),
    )


def split(whole: Molecules, seed: int) -> dict[str, Molecules]:
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    return {
        name: whole[part]
        for (name, _), part in zip(PARTS.items(), torch.split(order, [*PARTS.values()]), strict=True)
    }


def by_composition(training: Molecules) -> Tensor:
    """(S,): an energy for each element, by least squares. What a network adds to is their sum."""
    counts = training.composition.double()
    ridge = 1e-3 * torch.eye(counts.shape[1], dtype=torch.float64)  # for elements that are in no molecule
    right = counts.T @ training.energies.double()
    energies: Tensor = torch.linalg.solve(counts.T @ counts + ridge, right)
    return energies.float()
