"""Plants each mistake of checks/ in a copy of the kernels, and runs the copy until something finds it.

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

from . import build, checks
from .checks import OPS, Call, Mutation
from .device import Device

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- make mutants: begin -->\n", "<!-- make mutants: end -->\n"

BUILDS = ("plain", "asan", "race")
SCHEDULES = {
    "plain": ("forward", "reverse", "random:1", "warp:3"),
    "asan": ("forward",),
    "race": ("random:1",),
}
CPU_SECONDS = 200  # of one build's run: a mistake may make a loop endless


@dataclass(frozen=True)
class Subject:
    """An op and, unless its kernels are to be left sound, a mistake in them."""

    op: str
    mutation: Mutation | None = None

    def __str__(self) -> str:
        return f"{self.op}-{self.mutation}"


SUBJECTS = [Subject(op, mutation) for op in OPS for mutation in checks.of(op).mutations]


def calls(op: str, build_name: str) -> list[tuple[Call, int]]:
    of_op = checks.of(op)
    return of_op.calls + (of_op.large if build_name == "plain" else [])


@dataclass(frozen=True)
class Outcome:
    """Which build found it and how; empty: none did."""

    build: str = ""
    check: str = ""
    call: str = ""


# ---- one mutant -------------------------------------------------------------------------------------


def plant(subject: Subject) -> Path:
    """The folder with a copy of the kernels, one of them mistaken."""
    folder, mutation = build.OUT / "mutants" / str(subject), subject.mutation
    (folder / "cuda").mkdir(parents=True, exist_ok=True)
    for source in (*build.KERNELS.iterdir(), *build.KERNELS.parent.glob("*.h")):
        text = source.read_text()
        if mutation and source.name == mutation.file:
            text = mutation.of(text)
        (folder / source.relative_to(build.KERNELS.parent)).write_text(text)
    return folder / "cuda"


def find(subject: Subject, expected: Path, builds: tuple[str, ...] = BUILDS) -> Outcome:
    """`expected` is a folder, see save_expected."""
    kernels = plant(subject)
    checking = [p for folder in ("src", "include", "launchers") for p in (build.HERE / folder).rglob("*")]
    checking += [build.HERE / f"{name}.py" for name in ("build", "device", "mutants")]
    checking += [
        *build.HERE.glob(f"{subject.op}*.py"),
        *build.HERE.glob("*_cases.py"),
        *(build.ROOT / "tests").glob(f"test_{subject.op}*.py"),
    ]
    files = sorted(p for p in (*kernels.iterdir(), *checking) if p.is_file())
    content = build.content(*builds, *map(repr, calls(subject.op, "plain")), *files)
    kept = build.OUT / "mutants" / f"{content}.json"
    if kept.exists():
        return Outcome(**json.loads(kept.read_text()))
    also = (build.KERNELS / f"{op}.cu" for op in checks.of(subject.op).also)  # as they are, compiled once
    sources = (kernels / f"{subject.op}.cu", *also, build.HERE / "launchers" / f"{subject.op}.cpp")
    for name in builds:
        library = build.library(name, sources, kernels)
        outcome = run(subject.op, name, library, expected)
        library.unlink()
        if outcome.build:
            break
    if subject.mutation or not outcome.build:  # what sound kernels fail of is looked for again
        kept.write_text(json.dumps(asdict(outcome)))
    return outcome


def run(op: str, name: str, library: Path, expected: Path) -> Outcome:
    """In a process of its own, which the mistake may bring down."""
    code = "import sys; from cuda_on_cpu import mutants; print(mutants.check(*sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, op, name, str(library), str(expected / f"{op}.npz")],
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


def check(op: str, name: str, library: str, expected: str) -> str:
    """Runs the calls until one goes wrong: `call: what is wrong`, or nothing after the colon."""
    device, wanted = Device(Path(library), name), np.load(expected)
    of_op = checks.of(op)
    for number, (case, architecture) in enumerate(calls(op, name)):
        device.architecture(architecture)
        first: dict[str, np.ndarray] = {}
        held = {key.partition("/")[2]: wanted[key] for key in wanted if key.startswith(f"{number}/")}
        for schedule in SCHEDULES[name] if number < len(of_op.calls) else SCHEDULES[name][:1]:
            print(f"{case}, {schedule}: ", flush=True)
            device.schedule(schedule)
            try:
                results = case.run(device)
            except AssertionError as error:
                return f"{case}, {schedule}: {brief(str(error) or 'a launch is refused')}"
            if report := device.report():
                return f"{case}, {schedule}: {brief(report)}"
            if wrong := case.wrong(results, held):
                return f"{case}, {schedule}: wrong {wrong[0]}"
            first = first or results
            if differs := [n for n in results if not np.array_equal(results[n], first[n])]:
                return f"{case}, {schedule}: {differs[0]} depends on the order of threads"
    return ": "


def brief(report: str) -> str:
    return re.split(r"[:,;(\n]", report.strip().removeprefix("cuda_on_cpu: "))[0]


# ---- all of them ------------------------------------------------------------------------------------


def save_expected(folder: Path) -> None:
    """For each op, what its calls are to result in: <op>.npz"""
    for op in OPS:
        calls_of_op = [call for call, _ in calls(op, "plain")]
        named = ((i, *item) for i, call in enumerate(calls_of_op) for item in call.expected().items())
        np.savez(folder / f"{op}.npz", **{f"{i}/{name}": value for i, name, value in named})


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
        f"| {s.mutation.kind} | {s.mutation.name} | {s.mutation.file} | {o.build or '**none**'} | {o.check} |"
        for s, o in zip(SUBJECTS, outcomes, strict=True)
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder)
        save_expected(expected)
        for op in OPS:
            if (sound := find(Subject(op), expected)).build:
                print(f"mutants: the kernels of {op} without a mistake fail already: {sound}")
                return 1
        with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(transient=True) as progress:
            task = progress.add_task("planting", total=len(SUBJECTS))

            def one(subject: Subject) -> Outcome:
                outcome = find(subject, expected)
                build = outcome.build or "[bold red]NOT FOUND"
                progress.console.print(f"{build}\t{subject.op}: {subject.mutation.kind}: {subject.mutation}")
                progress.advance(task)
                return outcome

            outcomes = list(pool.map(one, SUBJECTS))
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + table(outcomes) + END + rest.partition(END)[2])
    show(outcomes)
    return 0 if all(o.build for o in outcomes) else 1


def show(outcomes: list[Outcome]) -> None:
    shown = Table("mistake", "where", "build", "found", "in")
    for subject, o in zip(SUBJECTS, outcomes, strict=True):
        shown.add_row(
            subject.mutation.kind, subject.mutation.name, o.build or "[bold red]none", o.check, o.call
        )
    Console().print(shown)


if __name__ == "__main__":
    sys.exit(main())
