"""Errors against training time, and the energy of the cluster as it moves."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from ..contest import Runs, best_so_far
from ..plot import STYLES
from ..report import LABELS
from .data import ATOMS, TIME_STEP
from .run import Totals


def plot(runs: Runs, totals: Totals, path: Path) -> None:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    errors, energies = figure.subplots(1, 2)
    for name, measurements in runs.items():
        seconds = [m["seconds"] for m in measurements]
        errors.plot(seconds, best_so_far(measurements), label=LABELS[name], **STYLES[name])
    errors.set_xlabel("seconds of training on this machine")
    errors.set_ylabel("error of the forces at the best validation, eV/Å")
    errors.set_yscale("log")
    truth = {"color": "black", "linewidth": 0.8}
    for name, total in totals.items():
        picoseconds = [i * TIME_STEP / 1000 for i in range(len(total))]
        meV = [1000 * (energy - total[0]) / ATOMS for energy in total]
        label = LABELS.get(name, f"true forces ({name})")
        energies.plot(picoseconds, meV, label=label, **STYLES.get(name, truth))
    energies.set_xlabel("time, ps")
    energies.set_ylabel("total energy less that at the start, meV an atom")
    for axes in (errors, energies):
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path, dpi=150)
