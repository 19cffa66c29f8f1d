"""Time against length, with a line that grows as L log L to compare with."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from .harness import Entry, Results, size
from .report import setting, settings

FORMATS = tuple(FigureCanvasBase.get_supported_filetypes())


def plot(results: Results, path: Path) -> None:
    """Time per element of x, so that lengths measured with different batches lie on one curve."""
    cases = [entry.case for entry in results]
    varying, fixed = settings(cases)
    curves: dict[str, dict[int, float]] = {}
    for entry, timing in results.items():
        curve = curves.setdefault(label(entry, varying), {})
        curve.setdefault(entry.case.length, timing.median / (entry.case.batch * entry.case.channels))

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    for name, curve in curves.items():
        lengths, times = zip(*sorted(curve.items()), strict=True)
        style = "-" if name.startswith("equiconv") else "--"
        axes.plot(lengths, times, style, marker="o", markersize=4, label=name)

    ticks = sorted({case.length for case in cases})
    lowest = min(time / cost(length) for curve in curves.values() for length, time in curve.items())
    guide = [lowest * 0.7 * cost(length) for length in ticks]
    axes.plot(ticks, guide, ":", color="grey", label="L log L")

    axes.set_xticks(ticks, [size(length) for length in ticks])
    axes.minorticks_off()
    axes.set_xlabel("length L")
    axes.set_ylabel("seconds per sequence and channel")
    axes.set_title(", ".join(fixed), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small").set_in_layout(False)
    figure.savefig(path, dpi=150)


def label(entry: Entry, varying: list[str]) -> str:
    return ", ".join([entry.contestant, *(setting(entry.case, name) for name in varying)])


def cost(length: int) -> float:
    return length * math.log2(max(length, 2))
