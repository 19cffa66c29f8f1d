"""Test error against training time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from ..contest import Runs, best_so_far
from ..plot import STYLES
from ..report import LABELS


def plot(runs: Runs, path: Path, published: Mapping[str, float]) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, measurements in runs.items():
        minutes = [m["seconds"] / 60 for m in measurements]
        axes.plot(minutes, best_so_far(measurements), label=LABELS[name], **STYLES[name])
    for (name, error), line in zip(published.items(), ("--", ":"), strict=True):
        axes.axhline(error, color="black", linestyle=line, linewidth=0.8, label=f"published: {name}")
    axes.set_xlabel("minutes of training on this machine")
    axes.set_ylabel("test error at the best validation, mean squared")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=150)
