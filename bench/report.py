"""What a run prints and writes: a table, the verdict on the promises, JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from . import MODELS
from .harness import Case, Entry, Results, ratio
from .model import Device
from .promises import Verdict

Row = dict[str, Any]


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def setting(case: Case, name: str) -> str:
    value = getattr(case, name)
    if name == "gates":
        return "gated" if value else "ungated"
    if name == "dense":
        return "dense" if value else "depthwise"
    if name == "filter":
        return f"{value} filter"
    return "fwd + bwd" if value == "backward" else str(value)


def settings(cases: Sequence[Case]) -> tuple[list[str], list[str]]:
    """The names of settings that deserve a column because they differ between the cases; of the others, what
    they are in all."""
    names = cases[0].settings
    varying = [name for name in names if len({setting(case, name) for case in cases}) > 1]
    return varying, [setting(cases[0], name) for name in names if name not in varying]


def sizes_of(case: Case) -> str:
    return ", ".join(f"{name} = {value}" for name, value in case.sizes.items())


def results_table(results: Results, errors: dict[Entry, float]) -> Table:
    """A row for each case: medians, their spread, and how many times as long each baseline takes."""
    cases = list(dict.fromkeys(entry.case for entry in results))
    contestants = list(dict.fromkeys(entry.contestant for entry in results))
    varying, fixed = settings(cases)
    table = Table(title=", ".join(fixed), caption="median ± half the interquartile range")
    for name in cases[0].sizes:
        table.add_column(name, justify="right")
    for name in varying:
        table.add_column(name)
    for contestant in contestants:
        table.add_column(contestant, justify="right")
        if contestant != "equiconv":
            table.add_column("ratio", justify="right", style="bold")
    if errors:
        table.add_column("error", justify="right")
    for case in cases:
        cells = [*case.sizes.values()]
        cells += [setting(case, name) for name in varying]
        for contestant in contestants:
            cells += timing_cells(results, Entry(case, contestant))
        if errors:
            cells.append(f"{max(errors[entry] for entry in errors if entry.case == case):.1e}")
        table.add_row(*cells)
    return table


def timing_cells(results: Results, entry: Entry) -> list[str]:
    timing = results.get(entry)
    if timing is None:
        return ["", ""]
    cells = [f"{duration(timing.median)} ±{timing.spread:.0%}"]
    if entry.contestant != "equiconv":
        cells.append(f"{ratio(results, entry.case, entry.contestant):.2f}")
    return cells


def model_table(cases: Sequence[Case], device: Device) -> Table:
    """A row for each case: what its kernels have to do, the time each part of it takes, and the floor."""
    varying, fixed = settings(cases)
    table = Table(title=", ".join([device.name, *fixed[:-1]]), caption="predicted (bench/model.py)")
    for name in cases[0].sizes:
        table.add_column(name, justify="right")
    for name in varying:
        table.add_column(name)
    terms = ("memory", "L2", "shared", "arithmetic", "tensor cores", "launches")
    for heading in ("kernels", *terms, "floor"):
        table.add_column(heading, justify="right", style="bold" if heading == "floor" else "")
    table.add_column("binds")
    table.add_column("of the least", justify="right")  # that any kernels would take
    for case in cases:
        prediction = MODELS[case.op](case, device)
        seconds = prediction.terms
        table.add_row(
            *case.sizes.values(),
            *(setting(case, name) for name in varying),
            str(len(prediction.launches)),
            *(duration(seconds[name]) for name in terms),
            duration(prediction.floor),
            prediction.binds,
            f"{prediction.floor / prediction.least:.2f}" if prediction.least else "",
        )
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="The promises, each at its worst point")
    for heading in ("promise", "promised", "measured", "where", ""):
        table.add_column(heading, justify="right" if heading.endswith("ed") else "left")
    for verdict in verdicts:
        sign = "≥" if verdict.promise.at_least else "≤"
        table.add_row(
            verdict.promise.text,
            f"{sign} {verdict.promise.bound:g}",
            f"{verdict.value:.2f}",
            ", ".join([sizes_of(verdict.case), setting(verdict.case, "direction")]),
            Text("kept", "green") if verdict.kept else Text("falls short", "red"),
        )
    return table


def rows(results: Results, errors: dict[Entry, float]) -> list[Row]:
    """The results as flat records, times in seconds."""
    return [
        {
            **asdict(entry.case),
            "contestant": entry.contestant,
            "median": timing.median,
            "spread": timing.spread,
            "fastest": min(timing.seconds),
            "repeats": len(timing.seconds),
            "times_equiconv": ratio(results, entry.case, entry.contestant),
            "error": errors.get(entry),
        }
        for entry, timing in results.items()
    ]


def write_json(
    path: Path, facts: dict[str, Any], records: Sequence[Row], verdicts: Sequence[Verdict]
) -> None:
    promises = [
        {
            "promise": verdict.promise.text,
            "bound": verdict.promise.bound,
            "measured": verdict.value,
            "case": asdict(verdict.case),
            "kept": verdict.kept,
        }
        for verdict in verdicts
    ]
    document = {"machine": facts, "results": list(records), "promises": promises}
    path.write_text(json.dumps(document, indent=2) + "\n")


def write_csv(path: Path, records: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
