"""One run of the benchmarks, as the command line asks for it: check, time, print, write."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, track

from . import OPS, PRESETS, allocator, harness, report
from .harness import Case, Entry, Results
from .model import Device

Plan = Sequence[Sequence[Entry]]
"""Groups of entries; the entries of a group take turns."""


def run_bench(options: argparse.Namespace, plan: Plan) -> int:
    """Return the exit status: 1 if a result is wrong or a promise is not kept."""
    if options.plot:
        from .plot import plot  # needs matplotlib; better to know now than after the run
    # torch.compile warns that it leaves complex numbers to eager kernels.
    warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
    preset = PRESETS.get(options.preset)
    threads = preset.THREADS if preset else options.threads
    if threads:
        torch.set_num_threads(threads)
    facts = {
        **harness.machine(options.device),
        "allocator": allocator.KEEP if allocator.is_tuned() else allocator.DEFAULT,
    }
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)

    errors = check(plan, console) if options.check else {}
    wrong = [entry for entry, error in errors.items() if not error <= harness.TOLERANCE[entry.case.dtype]]
    if wrong:
        for entry in wrong:
            console.print(f"{entry.contestant} is off by {errors[entry]:.1e}: {entry.case}", style="red")
        return 1

    results = measure(plan, options.seconds, console)
    console.print(report.results_table(results, errors))
    verdicts = [promise.verdict(results) for promise in preset.PROMISES] if preset else []
    if verdicts:
        console.print(report.verdict_table(verdicts))
    records = report.rows(results, errors)
    if options.json:
        report.write_json(options.json, facts, records, verdicts)
    if options.csv:
        report.write_csv(options.csv, records)
    if options.plot:
        plot(results, options.plot)
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def run_model(cases: Sequence[Case], device: Device) -> int:
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(report.model_table(cases, device))
    return 0


def check(plan: Plan, console: Console) -> dict[Entry, float]:
    """The error of every entry against the reference in float64."""
    entries = [entry for group in plan for entry in group]
    shown = track(entries, "checking", console=console, transient=True, disable=not console.is_terminal)
    return {entry: harness.error(OPS[entry.case.op], entry) for entry in shown}


def measure(plan: Plan, seconds: float, console: Console) -> Results:
    results: Results = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(plan))
        for done, group in enumerate(plan):
            case = group[0].case
            progress.update(task, description=f"{case.op} {case.direction} {report.sizes_of(case)}")

            def on_round(part: float, done: int = done) -> None:
                progress.update(task, completed=done + part)

            results |= harness.run_group(OPS, group, seconds=seconds, on_round=on_round)
    return results
