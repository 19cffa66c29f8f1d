"""``python -m equiconv demo text``: both contestants, one after the other, and the curves."""

from __future__ import annotations

import json
from pathlib import Path

from . import compare, report
from .compare import Run, Runs
from .train import CONVOLUTIONS, Settings


def run(settings: Settings, folder: Path) -> int:
    print(
        f"A language model with {settings.blocks} blocks of long convolutions learns to write Python from "
        f"the standard library's sources, {settings.length} bytes at a time:\n"
        f"{settings.seconds:g} s with plain PyTorch, then {settings.seconds:g} s with equiconv; "
        "same model, same seed, same batches."
    )
    runs: Runs = {}
    with report.live(runs, settings) as show:
        for name in CONVOLUTIONS:

            def on_step(run: Run, name: str = name) -> None:
                runs[name] = run
                show()

            runs[name] = compare.run(name, settings, on_step)

    report.print_summary(runs, settings)
    agreed = compare.agreement(*runs.values())
    print(report.agreement_sentence(agreed))
    print(f"The model now writes:\n\n{runs['equiconv'].sample}\n")
    save(runs, settings, folder)
    print(report.closing_sentence(runs))
    return 0 if agreed.holds else 1


def save(runs: Runs, settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "losses.json"
    numbers.write_text(json.dumps(compare.document(runs, settings), indent=2) + "\n")
    try:
        from .plot import plot
    except ModuleNotFoundError:
        print(f"Losses are in {numbers}; for a picture: pip install equiconv[bench]")
        return
    picture = folder / "losses.png"
    plot(runs, picture)
    print(f"Loss curves are in {picture}, numbers in {numbers}.")
