"""The loss curves: against steps, where they must coincide, and against time, where they should not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .compare import Runs
from .report import LABELS

STYLES: dict[str, dict[str, Any]] = {
    "torch": {"color": "tab:gray", "linewidth": 3.0},
    "equiconv": {"color": "tab:blue", "linewidth": 1.2},
}


def plot(runs: Runs, path: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    for name, run in runs.items():
        smooth = [run.loss_around(step) for step in range(len(run.losses))]
        style = {"label": LABELS[name], **STYLES[name]}
        by_step.plot(range(1, len(smooth) + 1), smooth, **style)
        by_time.plot(run.seconds, smooth, **style)
    for axes, label in ((by_step, "steps"), (by_time, "seconds")):
        axes.axhline(
            next(iter(runs.values())).unigram, color="black", linestyle=":", label="frequencies alone"
        )
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    by_step.set_ylabel("training loss, bits per byte, mean of 10")
    by_time.legend()
    figure.savefig(path, dpi=150)
