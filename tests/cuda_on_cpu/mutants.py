"""Plants each mistake of mutations.py in a copy of the kernels, and runs the copy until something finds it.

    make mutants        or, from tests/: python -m cuda_on_cpu.mutants

The builds are tried from the quickest to compile to the slowest: plain (four schedules), asan, race. A
mistake that all of them let pass is a failure: then a case, a check or a schedule is missing. What was found
is kept in build/cuda_on_cpu by the content of everything that it depends on, and written into README.md.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from . import build
from .cases import SMALL, THREE_LAUNCHES, Case
from .device import Device
from .mutations import MUTATIONS, Mutation

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- make mutants: begin -->\n", "<!-- make mutants: end -->\n"

BUILDS = ("plain", "asan", "race")
SCHEDULES = {
    "plain": ("forward", "reverse", "random:1", "warp:3"),
    "asan": ("forward",),
    "race": ("random:1",),
}
# Calls, and the device to be. Between them they reach every line of the kernels.
CALLS = [
    *((case, 90) for case in SMALL),
    (Case(33, batch=3, channels=70, layout="bld"), 90),  # rows side by side, and not all of a block's
    (Case(33, batch=7, channels=130), 90),  # parts of several rows
    (Case(50, batch=9, shared=False, gates="", channels=5), 90),
    (Case(300, taps=6, mode="bidirectional", skip=False, stored="float16"), 90),
    (Case(8000, batch=5, channels=2, shared=False), 80),  # kept spectra outside shared memory
    (Case(8000, batch=2, channels=1, stored="float64"), 90),
    (Case(4100, channels=2, stored="float64", mode="bidirectional"), 86),  # three launches from here on
    (Case(9000, channels=3, batch=1, shared=False), 86),
    (THREE_LAUNCHES, 90),
]
# What needs many points, for the build that is quick.
LARGE = [
    (Case(70_000, batch=2, channels=1, stored="float64", gates="post", wanted=("grad_filter", "grad_x")), 86),
    (Case(200_000, batch=9, channels=1, stored="float64", gates="", wanted=("grad_filter", "grad_x")), 90),
    (Case(200_000, batch=5, channels=1, stored="float64", gates="", shared=False,
          wanted=("grad_filter", "grad_x")), 90),
]  # fmt: skip
CPU_SECONDS = 200  # of one build's run: a mistake may make a loop endless


def calls(name: str) -> list[tuple[Case, int]]:
    return CALLS + LARGE if name == "plain" else CALLS


@dataclass(frozen=True)
class Outcome:
    """Which build found it and how; empty: none did."""

    build: str = ""
    check: str = ""
    call: str = ""


# ---- one mutant -------------------------------------------------------------------------------------


def plant(mutation: Mutation | None) -> Path:
    """The folder with a copy of the kernels, one of them mistaken."""
    folder = build.OUT / "mutants" / str(mutation)
    (folder / "cuda").mkdir(parents=True, exist_ok=True)
    for source in (*build.KERNELS.iterdir(), *build.KERNELS.parent.glob("*.h")):
        text = source.read_text()
        if mutation and source.name == mutation.file:
            text = mutation.of(text)
        (folder / source.relative_to(build.KERNELS.parent)).write_text(text)
    return folder / "cuda"


def find(mutation: Mutation | None, expected: Path, builds: tuple[str, ...] = BUILDS) -> Outcome:
    kernels = plant(mutation)
    checks = [p for folder in ("src", "include") for p in (build.HERE / folder).rglob("*") if p.is_file()]
    checks += [build.HERE / f"{name}.py" for name in ("build", "cases", "device", "expected", "mutants")]
    kept = build.OUT / "mutants" / f"{build.content(*builds, *sorted((*kernels.iterdir(), *checks)))}.json"
    if kept.exists():
        return Outcome(**json.loads(kept.read_text()))
    sources = (*sorted(kernels.glob("*.cu")), build.HERE / "launchers.cpp")
    for name in builds:
        library = build.library(name, sources, kernels)
        outcome = run(name, library, expected)
        library.unlink()
        if outcome.build:
            break
    kept.write_text(json.dumps(asdict(outcome)))
    return outcome


def run(name: str, library: Path, expected: Path) -> Outcome:
    """In a process of its own, which the mistake may bring down."""
    code = "import sys; from cuda_on_cpu import mutants; print(mutants.check(*sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(library), str(expected)],
        cwd=build.ROOT / "tests",
        env=build.asan_environment() if name == "asan" else None,
        capture_output=True,
        text=True,
        errors="replace",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS)),
    )
    if done.returncode == 0:
        call, _, found = done.stdout.splitlines()[-1].partition(": ")
        return Outcome(name, found, call) if found else Outcome()
    if sanitizer := re.search(r"AddressSanitizer: (\S+)|runtime error: (.*?)(?: 0x|\n)", done.stderr):
        found = sanitizer[1] or sanitizer[2]
    elif done.returncode < 0:
        found = f"crash: {signal.Signals(-done.returncode).name}"
    else:
        raise RuntimeError(f"{library}, {name}:\n{done.stderr}")
    return Outcome(name, found, (done.stdout.splitlines() or [""])[-1].partition(": ")[0])


def check(name: str, library: str, expected: str) -> str:
    """Runs the calls until one goes wrong: `call: what is wrong`, or nothing after the colon."""
    device, wanted = Device(Path(library), name), np.load(expected)
    for number, (case, architecture) in enumerate(calls(name)):
        device.architecture(architecture)
        first: dict[str, np.ndarray] = {}
        for schedule in SCHEDULES[name] if number < len(CALLS) else SCHEDULES[name][:1]:
            print(f"{case}, {schedule}: ", flush=True)
            device.schedule(schedule)
            try:
                results = case.run(device)
            except AssertionError as error:
                return f"{case}, {schedule}: {brief(str(error) or 'a launch is refused')}"
            if report := device.report():
                return f"{case}, {schedule}: {brief(report)}"
            if wrong := case.wrong(results, {n: wanted[f"{number}/{n}"] for n in results}):
                return f"{case}, {schedule}: wrong {wrong[0]}"
            first = first or results
            if differs := [n for n in results if not np.array_equal(results[n], first[n])]:
                return f"{case}, {schedule}: {differs[0]} depends on the order of threads"
    return ": "


def brief(report: str) -> str:
    return re.split(r"[:,;(\n]", report.strip().removeprefix("cuda_on_cpu: "))[0]


# ---- all of them ------------------------------------------------------------------------------------


def save_expected(path: Path) -> None:
    from .expected import expected  # needs torch, which the runs of the mutants do not

    named = ((i, *item) for i, (case, _) in enumerate(CALLS + LARGE) for item in expected(case).items())
    np.savez(path, **{f"{i}/{name}": value for i, name, value in named})


def table(outcomes: list[Outcome]) -> str:
    """For README.md."""
    found = [o for o in outcomes if o.build]
    by = ", ".join(f"{sum(o.build == name for o in found)} by `{name}`" for name in BUILDS)
    lines = [
        f"{len(found)} of {len(outcomes)} mistakes are found: {by}, each by the first build that does.",
        "",
        "| mistake | where | file | build | found |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {m.kind} | {m.name} | {m.file} | {o.build or '**none**'} | {o.check} |"
        for m, o in zip(MUTATIONS, outcomes, strict=True)
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.npz"
        save_expected(expected)
        if (sound := find(None, expected)).build:
            print(f"mutants: the kernels without a mistake fail already: {sound}")
            return 1
        with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(transient=True) as progress:
            task = progress.add_task("planting", total=len(MUTATIONS))

            def one(mutation: Mutation) -> Outcome:
                outcome = find(mutation, expected)
                build = outcome.build or "[bold red]NOT FOUND"
                progress.console.print(f"{build}\t{mutation.kind}: {mutation.name}")
                progress.advance(task)
                return outcome

            outcomes = list(pool.map(one, MUTATIONS))
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + table(outcomes) + END + rest.partition(END)[2])
    show(outcomes)
    return 0 if all(o.build for o in outcomes) else 1


def show(outcomes: list[Outcome]) -> None:
    shown = Table("mistake", "where", "build", "found", "in")
    for mutation, o in zip(MUTATIONS, outcomes, strict=True):
        shown.add_row(mutation.kind, mutation.name, o.build or "[bold red]none", o.check, o.call)
    Console().print(shown)


if __name__ == "__main__":
    sys.exit(main())
