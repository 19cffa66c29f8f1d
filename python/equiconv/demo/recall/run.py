"""``python -m equiconv demo recall``: every contestant with every seed, and the picture.

The paper's sizes are for a GPU: ``--length 128 --vocabulary 20`` (or 30, 40) ``--device cuda --threads 1``.
"""

from __future__ import annotations

from pathlib import Path

from ...bench.cli import BadOptions
from .. import sequence
from ..save import save
from ..sequence import LABELS, Runs, mean_accuracy
from .train import CONTESTANTS, Settings


def run(settings: Settings, folder: Path) -> int:
    for name, least, why in (
        ("length", 4, "a key, its value, a sign and the key again"),
        ("vocabulary", 2, "a key and a value"),
    ):
        if getattr(settings, name) < least:
            raise BadOptions(f"--{name} must be at least {least}, for {why}.")
    print(
        f"Which value went with this key? {settings.length} symbols of {settings.vocabulary}, half of them "
        f"keys; {settings.layers} layers of {settings.channels} channels;\n"
        f"{settings.steps} steps of training for each of {len(CONTESTANTS)} models and {settings.seeds} "
        f"seeds, {settings.threads} at a time. A guess among the values is right in "
        f"{1 / (settings.vocabulary - settings.vocabulary // 2):.0%}.\n"
    )
    print(f"{'':<18}{'seed':>5}{'seconds':>9}{'steps':>8}{'loss':>9}{'accuracy':>10}")

    def show(name: str, i: int, m: dict[str, float]) -> None:
        cells = f"{settings.seed + i:>5}{m['seconds']:>9.1f}{m['steps']:>8.0f}{m['loss']:>9.4f}"
        print(f"{LABELS[name]:<18}{cells}{m['accuracy']:>10.2%}", flush=True)

    runs = sequence.run_all("equiconv.demo.recall.train", CONTESTANTS, settings, show)
    print(f"\n{sentence(runs)}")
    save("recall", runs, settings, folder)
    return 0


def sentence(runs: Runs) -> str:
    found = ", ".join(f"{LABELS[name]} {mean_accuracy(runs, name):.2%}" for name in runs)
    return f"In short: accuracy at the end, mean of {len(next(iter(runs.values())))} seeds: {found}."
