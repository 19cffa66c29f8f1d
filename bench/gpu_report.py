"""Writes the table of what is predicted for a GPU, and of what was measured on one, into a Markdown file:

python -m equiconv.bench.gpu_report bench/results/README.md [results.json of bench/gpu_acceptance.sh]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import MODELS, gpu_cases
from .harness import DIRECTIONS, Case, size
from .model import DEVICES

BEGIN, END = "<!-- gpu -->\n", "<!-- /gpu -->\n"
UNMEASURED = "not yet run on a GPU"


def lines(device: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """A Markdown table; `rows` are those of the part `model` of gpu_acceptance."""
    yield f"| {DEVICES[device].name}, L | B × D | | dtype | layout | predicted | binds | measured |"
    yield "|---|---|---|---|---|---|---|---|"
    for length in gpu_cases.LENGTHS:
        for direction in DIRECTIONS:
            for case in gpu_cases.variants(gpu_cases.base_case(length, direction, "cuda")):
                prediction = MODELS[case.op](case, DEVICES[device])
                both = "forward and backward" if direction == "backward" else "forward"
                cells = [size(length), f"{case.batch} × {case.channels}", both, case.dtype, case.layout]
                cells += [milliseconds(prediction.floor), prediction.binds, measured(case, rows)]
                yield f"| {' | '.join(cells)} |"
    yield ""
    gates = [(f"{size(case.length)} × {case.channels}", case) for case in gpu_cases.gate_cases("cuda")]
    yield from sized("gate of rows × D", gates, device, rows)
    yield ""
    yield f"| {DEVICES[device].name}, L | B × D | op | | dtype | layout | predicted | binds | measured |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for case in gpu_cases.short_conv_cases("cuda"):
        prediction = MODELS[case.op](case, DEVICES[device])
        both = "forward and backward" if case.direction == "backward" else "forward"
        cells = [size(case.length), f"{case.batch} × {case.channels}", case.op, both, case.dtype, case.layout]
        cells += [milliseconds(prediction.floor), prediction.binds, measured(case, rows)]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"| {DEVICES[device].name}, tokens one by one | B × D | dtype | predicted | binds | measured |"
    yield "|---|---|---|---|---|---|"
    for case in gpu_cases.step_cases("cuda"):
        prediction = MODELS[case.op](case, DEVICES[device])
        cells = [size(case.length), f"{case.batch} × {case.channels}", case.dtype]
        cells += [milliseconds(prediction.floor), prediction.binds, measured(case, rows)]
        yield f"| {' | '.join(cells)} |"
    yield ""
    filters = [(f"{size(case.length)} × {case.channels}", case) for case in gpu_cases.filter_cases("cuda")]
    yield from sized("implicit_filter of L × D", filters, device, rows)
    yield ""
    pairs = [(f"{case.length} × {case.orientations}", case) for case in gpu_cases.invariants_cases("cuda")]
    yield from sized("pair_invariants of pairs × O", pairs, device, rows)


def sized(
    title: str, cases: Iterable[tuple[str, Case]], device: str, rows: list[dict[str, Any]]
) -> Iterator[str]:
    """Of an op whose cases differ in sizes, direction and dtype."""
    yield f"| {DEVICES[device].name}, {title} | | dtype | predicted | binds | measured |"
    yield "|---|---|---|---|---|---|"
    for sizes, case in cases:
        prediction = MODELS[case.op](case, DEVICES[device])
        both = "forward and backward" if case.direction == "backward" else "forward"
        cells = [
            sizes,
            both,
            case.dtype,
            milliseconds(prediction.floor),
            prediction.binds,
            measured(case, rows),
        ]
        yield f"| {' | '.join(cells)} |"


def measured(case: Case, rows: list[dict[str, Any]]) -> str:
    wanted = asdict(case)
    found = [row["measured"] for row in rows if all(row[name] == value for name, value in wanted.items())]
    return milliseconds(found[0]) if found else UNMEASURED


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def rewritten(text: str, device: str, rows: list[dict[str, Any]]) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n".join(lines(device, rows)) + "\n" + END + after


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m equiconv.bench.gpu_report")
    parser.add_argument("readme", type=Path)
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--device", choices=list(DEVICES), default="h200")
    options = parser.parse_args()
    rows = []
    if options.results:
        rows = json.loads(options.results.read_text())["parts"]["model"]["results"]["rows"]
    options.readme.write_text(rewritten(options.readme.read_text(), options.device, rows))


if __name__ == "__main__":
    main()
