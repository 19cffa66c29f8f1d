"""``python -m equiconv demo forces``: both contestants, one after the other, and the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import contest
from ..contest import Runs, best
from ..ponita import CONTESTANTS
from .data import ATOMS, PARTS, TEMPERATURE, TIME_STEP, load
from .dynamics import move, true_energy_and_forces
from .train import Settings

COLUMNS = {"training": ".4f", "validation": ".4f", "test": ".4f", "energy": ".4f"}
Totals = Mapping[str, Sequence[float]]


def run(settings: Settings, folder: Path) -> int:
    print(
        f"PONITA ({settings.layers} layers, {settings.channels} channels, {settings.orientations} "
        f"orientations) learns the forces in a cluster of {ATOMS} copper atoms at {TEMPERATURE:g} K\n"
        f"from {PARTS['training']} frames: {settings.seconds:g} s with plain PyTorch, then "
        f"{settings.seconds:g} s with equiconv; same start, same data.\n"
        "Errors are mean absolute ones: forces in eV/Å, energies in eV an atom."
    )
    load()
    runs = contest.hold("equiconv.demo.forces.train", CONTESTANTS, settings, COLUMNS)
    totals = {name: run[-1]["total"] for name, run in runs.items()}
    totals["EMT"] = move(true_energy_and_forces(), settings.steps, settings.seed)
    print(f"\n{sentence(runs)}\n{drift_sentence(totals)}")

    def picture() -> Callable[[Path], None]:
        from .plot import plot

        return lambda path: plot(runs, totals, path)

    contest.save("forces", runs, settings, folder, picture, totals=totals)
    return 0


def sentence(runs: Runs) -> str:
    plain, ours = (runs[name] for name in CONTESTANTS)
    return (
        f"In short: forces of unseen frames are wrong by {1000 * best(ours):.0f} meV/Å with equiconv and by "
        f"{1000 * best(plain):.0f} meV/Å with plain PyTorch after the same time; equiconv made "
        f"{contest.faster(runs):.2f} times as many steps a second."
    )


def drift(total: Sequence[float]) -> float:
    """The mean over the last tenth less that over the first, in eV."""
    some = max(len(total) // 10, 1)
    return sum(total[-some:]) / some - sum(total[:some]) / some


def drift_sentence(totals: Totals) -> str:
    picoseconds = len(totals["EMT"]) * TIME_STEP / 1000
    return (
        f"Moved by the learned forces for {picoseconds:g} ps, the cluster's energy drifts by "
        f"{1000 * drift(totals['equiconv']) / ATOMS:+.2f} meV an atom, by the true ones by "
        f"{1000 * drift(totals['EMT']) / ATOMS:+.2f}."
    )
