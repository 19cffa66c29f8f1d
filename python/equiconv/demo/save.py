"""What the examples of sequence models leave: numbers, and a picture of accuracy by steps and by time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from .sequence import COLOURS, LABELS, Runs, Settings


def save(name: str, runs: Runs, settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / f"{name}.json"
    numbers.write_text(json.dumps({"settings": asdict(settings), "runs": runs}, indent=2) + "\n")
    picture = folder / f"{name}.png"
    try:
        plot(runs, picture)
    except ModuleNotFoundError:
        print(f"Numbers are in {numbers}; for a picture: pip install equiconv[bench]")
        return
    print(f"The picture is {picture}, numbers are in {numbers}.")


def plot(runs: Runs, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    by_steps, by_time = figure.subplots(1, 2, sharey=True)
    for axes, key in ((by_steps, "steps"), (by_time, "seconds")):
        for name, seeds in runs.items():
            for i, measurements in enumerate(seeds):
                axes.plot(
                    [m[key] for m in measurements],
                    [m["accuracy"] for m in measurements],
                    color=COLOURS[name],
                    label=LABELS[name] if i == 0 else None,
                )
        axes.set_xlabel(key)
        axes.grid(alpha=0.3)
    by_steps.set_ylabel("accuracy")
    by_time.legend()
    figure.savefig(path, dpi=150)
