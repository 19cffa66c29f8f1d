"""``python -m equiconv demo nbody``: both contestants, one after the other, and the picture."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .. import process
from ..report import LABELS
from . import simulate
from .train import CONTESTANTS, Settings

Measurements = Sequence[Mapping[str, float]]
PUBLISHED = {"EGNN": 0.0070, "PONITA, 300,000 steps": 0.0043}  # test errors


def run(settings: Settings, folder: Path) -> int:
    print(
        f"PONITA ({settings.layers} layers, {settings.channels} channels, {settings.orientations} "
        "orientations) learns where five charged particles will be,\n"
        f"{settings.seconds:g} s with plain PyTorch, then {settings.seconds:g} s with equiconv; same start, "
        "same data. Errors are mean squared ones."
    )
    start = time.perf_counter()
    simulate.load()
    print(f"{sum(simulate.USED)} trajectories are ready ({time.perf_counter() - start:.0f} s).")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for name, measurements in runs.items():
        print(f"\n{LABELS[name]}\n{'seconds':>9}{'steps':>8}{'training':>11}{'validation':>12}{'test':>9}")
        for m in process.records("equiconv.demo.nbody.train", name, settings):
            measurements.append(m)
            errors = f"{m['training']:>11.4f}{m['validation']:>12.4f}{m['test']:>9.4f}"
            print(f"{m['seconds']:>9.1f}{m['steps']:>8}{errors}", flush=True)
    print(f"\n{sentence(runs)}")
    save(runs, settings, folder)
    return 0


def best(measurements: Measurements) -> float:
    """The test error where validation is best."""
    return min(measurements, key=lambda m: m["validation"])["test"]


def best_so_far(measurements: Measurements) -> list[float]:
    return [best(measurements[: i + 1]) for i in range(len(measurements))]


def sentence(runs: Mapping[str, Measurements]) -> str:
    plain, ours = (runs[name] for name in CONTESTANTS)
    speed = (ours[-1]["steps"] / ours[-1]["seconds"]) / (plain[-1]["steps"] / plain[-1]["seconds"])
    words = (
        f"In short: test error {best(ours):.4f} with equiconv and {best(plain):.4f} with plain PyTorch after "
        f"the same time; equiconv made {speed:.2f} times as many steps a second"
    )
    reached = [m["seconds"] for m, e in zip(ours, best_so_far(ours), strict=True) if e <= best(plain)]
    if reached:
        words += f" and had plain PyTorch's last error after {reached[0]:.0f} of {plain[-1]['seconds']:.0f} s"
    return f"{words}. (Published: EGNN 0.0070; PONITA 0.0043 after 300,000 steps.)"


def save(runs: Mapping[str, Measurements], settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "nbody.json"
    document = {"settings": asdict(settings), "runs": runs, "published": PUBLISHED}
    numbers.write_text(json.dumps(document, indent=2) + "\n")
    try:
        from .plot import plot
    except ModuleNotFoundError:
        print(f"Errors are in {numbers}; for a picture: pip install equiconv[bench]")
        return
    picture = folder / "nbody.png"
    plot(runs, picture)
    print(f"The picture is {picture}, numbers are in {numbers}.")
