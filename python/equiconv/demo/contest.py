"""Contestants that are trained for the same time, one after the other, and measured meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import process
from .report import LABELS

Measurements = Sequence[Mapping[str, Any]]
Runs = Mapping[str, Measurements]


def hold(module: str, contestants: Iterable[str], settings: Any, columns: Mapping[str, str]) -> Runs:
    """Run ``python -m module contestant settings`` for each, and print its measurements as they come.

    columns: a format for each measurement to be shown.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for contestant in contestants:
        print(f"\n{LABELS[contestant]}\n{'seconds':>9}{'steps':>8}{''.join(f'{c:>13}' for c in columns)}")
        runs[contestant] = []
        for m in process.records(module, contestant, settings):
            runs[contestant].append(m)
            cells = "".join(f"{format(m[column], form):>13}" for column, form in columns.items())
            print(f"{m['seconds']:>9.1f}{m['steps']:>8}{cells}", flush=True)
    return runs


def best(measurements: Measurements, error: str = "test") -> float:
    """The error where validation is best."""
    return float(min(measurements, key=lambda m: m["validation"])[error])


def best_so_far(measurements: Measurements, error: str = "test") -> list[float]:
    return [best(measurements[: i + 1], error) for i in range(len(measurements))]


def faster(runs: Runs) -> float:
    """How many times as many steps a second the last contestant made as the first."""
    first, *_, last = runs.values()
    last_speed, first_speed = (run[-1]["steps"] / run[-1]["seconds"] for run in (last, first))
    return float(last_speed / first_speed)


def save(
    name: str,
    runs: Runs,
    settings: Any,
    folder: Path,
    plot: Callable[[], Callable[[Path], None]],
    **more: object,
) -> None:
    """Numbers and picture, `name` both.

    plot: imports what draws, and gives it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / f"{name}.json"
    numbers.write_text(json.dumps({"settings": asdict(settings), "runs": runs, **more}, indent=2) + "\n")
    try:
        draw = plot()
    except ModuleNotFoundError:
        print(f"Errors are in {numbers}; for a picture: pip install equiconv[bench]")
        return
    picture = folder / f"{name}.png"
    draw(picture)
    print(f"The picture is {picture}, numbers are in {numbers}.")
