"""``python -m equiconv demo digits``: both contestants with every seed, and the picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .. import sequence
from ..process import Failed
from ..save import save
from ..sequence import LABELS, Runs, mean_accuracy, parameters
from .train import CONTESTANTS, Settings, make


def run(settings: Settings, folder: Path) -> int:
    if importlib.util.find_spec("sklearn") is None:
        raise Failed("The images come with scikit-learn, which is not installed: pip install equiconv[demo]")
    sizes = ", ".join(f"{LABELS[name]} {parameters(make(name, settings)):,}" for name in CONTESTANTS)
    print(
        f"Which digit is this, pixel by pixel? {settings.layers} layers of {settings.channels} channels; "
        f"parameters: {sizes}.\n"
        f"{settings.steps} steps of training for each of {len(CONTESTANTS)} models and {settings.seeds} "
        f"seeds, {settings.threads} at a time.\n"
    )
    print(f"{'':<18}{'seed':>5}{'seconds':>9}{'epochs':>8}{'loss':>9}{'accuracy':>10}")

    def show(name: str, i: int, m: dict[str, float]) -> None:
        cells = f"{settings.seed + i:>5}{m['seconds']:>9.1f}{m['epoch']:>8.1f}{m['loss']:>9.4f}"
        print(f"{LABELS[name]:<18}{cells}{m['accuracy']:>10.2%}", flush=True)

    runs = sequence.run_all("equiconv.demo.digits.train", CONTESTANTS, settings, show)
    print(f"\n{sentence(runs)}")
    save("digits", runs, settings, folder)
    return 0


def sentence(runs: Runs) -> str:
    def words(name: str) -> str:
        last = [measurements[-1] for measurements in runs[name]]
        epoch = sum(m["seconds"] for m in last) / sum(m["epoch"] for m in last)
        return (
            f"{LABELS[name]} {mean_accuracy(runs, name):.2%} with {last[0]['parameters']:,.0f} parameters "
            f"and {epoch:.2f} s an epoch"
        )

    seeds = len(next(iter(runs.values())))
    return f"In short: accuracy at the end, mean of {seeds} seeds: {'; '.join(map(words, runs))}."
