"""``python -m equiconv demo``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import compare, report
from .compare import Run, Runs
from .train import CONVOLUTIONS, Settings


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number.")
    return value


def count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number.")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=positive, default=60.0, help="training time, half for each contestant (default: 60)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("equiconv-demo"), help="folder for curves and numbers"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=count, default=Settings.threads)
    parser.add_argument("--length", type=count, default=Settings.length, help="L, the context in bytes")
    parser.add_argument("--batch", type=count, default=Settings.batch)
    parser.add_argument("--channels", type=count, default=Settings.channels)
    parser.add_argument("--blocks", type=count, default=Settings.blocks)


def run(options: argparse.Namespace) -> int:
    settings = Settings(
        seconds=options.seconds / len(CONVOLUTIONS),
        seed=options.seed,
        threads=options.threads,
        length=options.length,
        batch=options.batch,
        channels=options.channels,
        blocks=options.blocks,
    )
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
    save(runs, settings, options.out)
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
