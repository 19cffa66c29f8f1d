"""Errors against training time."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from ..contest import Runs, best_so_far
from ..plot import STYLES
from ..report import LABELS


def plot(runs: Runs, path: Path) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, measurements in runs.items():
        seconds = [m["seconds"] for m in measurements]
        axes.plot(seconds, best_so_far(measurements), label=LABELS[name], **STYLES[name])
    composition = next(iter(runs.values()))[-1]["composition"]
    axes.axhline(composition, color="black", linestyle="--", linewidth=0.8, label="composition alone")
    axes.set_xlabel("seconds of training on this machine")
    axes.set_ylabel("test error at the best validation, eV")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
