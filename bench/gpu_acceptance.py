"""Builds, proves and measures the CUDA kernels on a machine with a GPU, in less than nine minutes.

    bench/gpu_acceptance.sh FOLDER              what is finished in FOLDER already is not run again
    bench/gpu_acceptance.sh FOLDER --dry-run    the same without a GPU, on the CPU and with small sizes

Every part is a process of its own under a time limit: one that crashes or hangs takes nothing with it.
FOLDER/results.json holds what is finished, also of a part that was stopped; FOLDER/log.txt what was printed.

Needs torch 2.11 or later with CUDA, nvcc, cmake, ninja, pybind11, scikit-build-core, pytest and hypothesis,
but no network. What is built goes to build/gpu_acceptance; the installed packages are left alone. This file
needs Python alone; what the parts do is in gpu_parts.py.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "gpu_acceptance"
SITE = BUILD / "site"
SOURCES = ("CMakeLists.txt", "pyproject.toml", "bench", "build_support", "csrc", "python", "tests")
GRACE = 10.0  # seconds to end in after an interrupt, before a part is killed
DRY_LIMITS = 5  # times the limits of the parts: a machine without a GPU may be a slow one
SECONDS = 510.0  # for everything, which with the grace of its last part is less than nine minutes

# What ncu is to read, of each kernel.
METRICS = {
    "gpu__time_duration.sum": "time",
    "dram__bytes_read.sum": "bytes read from memory",
    "dram__bytes_write.sum": "bytes written to memory",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "% of memory's peak",
    "lts__t_sectors.sum": "L2 sectors",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum": "shared wavefronts",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum": "bank conflicts",
    "smsp__inst_executed.sum": "warp instructions",
    "sm__inst_executed_pipe_tensor.sum": "tensor core instructions",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "% of a multiprocessor's peak",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "% of warps active",
    "launch__registers_per_thread": "registers",
}


@dataclass(frozen=True)
class Command:
    """A program, and the tool it runs under where there is a GPU, which must print what `proof` matches."""

    program: Sequence[str]
    tool: Sequence[str] = ()
    proof: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    name: str
    limit: float  # seconds, of all commands together
    commands: Callable[[Run], list[Command]]
    results: Callable[[Run], Any] = lambda run: run.written()
    needed: bool = False  # the parts after it make no sense without it
    may_fail: bool = False


@dataclass(frozen=True)
class Run:
    """One run: where it writes, and whether on a GPU."""

    folder: Path
    dry: bool

    @property
    def part_file(self) -> Path:
        return self.folder / "part.json"

    @property
    def report_file(self) -> Path:
        return self.folder / "part.txt"

    @property
    def log_file(self) -> Path:
        return self.folder / "log.txt"

    @property
    def results_file(self) -> Path:
        return self.folder / "results.json"

    def python(self, part: str) -> list[str]:
        """A part of gpu_parts.py."""
        device = "cpu" if self.dry else "cuda"
        options = ["--device", device, "--out", str(self.part_file), "--results", str(self.results_file)]
        return [sys.executable, "-m", "equiconv.bench.gpu_parts", part, *options]

    def written(self) -> Any:
        """What the part wrote before it ended, however it ended."""
        return json.loads(self.part_file.read_text()) if self.part_file.exists() else None

    def environment(self) -> dict[str, str]:
        paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
        variables = os.environ | {"PATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        if self.dry:
            variables["OMP_NUM_THREADS"] = "1"  # nothing is large enough for two
        else:
            packages = [str(SITE), os.environ.get("PYTHONPATH", "")]
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, packages))
        return variables


# ---- the parts ---------------------------------------------------------------------------------------------


def build(run: Run) -> list[Command]:
    ask = "import torch; print(*torch.cuda.get_device_capability(), sep='')"
    capability = "90"
    if not run.dry:
        found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60)
        if found.returncode:
            raise Missing(
                f"torch finds no GPU: {(found.stderr.strip().splitlines() or ['no reason given'])[-1]}"
            )
        capability = found.stdout.strip()
    architecture = f"{capability}a-real" if capability == "90" else f"{capability}-real"
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-deps"]
    install += ["--upgrade", "--target", str(SITE), "-C", f"build-dir={BUILD / 'cmake'}"]
    install += ["-C", f"cmake.define.EQUICONV_CUDA={'AUTO' if run.dry else 'ON'}"]
    install += ["-C", f"cmake.define.EQUICONV_CUDA_ARCHS={architecture}"]
    if (older := older_backend(importlib.metadata.version("scikit-build-core"))) is not None:
        install += ["-C", f"minimum-version={older}"]
    install += ["--dry-run"] if run.dry else []  # pip's: the same questions, but nothing is compiled
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    # Line numbers cost nothing at run time, and name the line in what the sanitizer and ncu report.
    return [Command([*install, str(ROOT)], environment=quiet | {"CUDAFLAGS": "-lineinfo"})]


def older_backend(version: str) -> str | None:
    """As "0.11" of 0.11.6, where it is older than pyproject.toml asks for, but good enough for this build."""
    release = re.findall(r"\d+", version)[:2]
    return ".".join(release) if tuple(map(int, release)) < (1, 1) else None


def contract(run: Run) -> list[Command]:
    """Every op's whole contract, the tests marked cuda; without a GPU a few of the others."""
    which = ["-m", "not cuda", "-k", "test_values and float32 and not random"] if run.dry else ["-m", "cuda"]
    tests = sorted(ROOT.glob("tests/test_*.py"))
    files = [str(path.relative_to(ROOT)) for path in tests if "import contract" in path.read_text()]
    beside = ["-n", "6"] if not run.dry and importlib.util.find_spec("xdist") else []
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--maxfail=40", *beside]
    return [Command([*pytest, *which, "-o", "junit_family=xunit2", f"--junitxml={run.report_file}", *files])]


def contract_results(run: Run) -> Any:
    if not run.report_file.exists():
        return None
    cases = list(xml.etree.ElementTree.parse(run.report_file).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return {
        "tests": len(cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
    }


def sanitizer(run: Run) -> list[Command]:
    """A few calls, every tensor an allocation of its own so that a step past its end is seen."""
    program = run.python("sanitized")
    apart = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    base = [tool("compute-sanitizer", run), "--error-exitcode", "9", "--print-limit", "20"]
    # What torch asks the driver in vain while it starts is no error of ours.
    memcheck = [*base, "--tool", "memcheck", "--report-api-errors", "no"]
    racecheck = [*base, "--tool", "racecheck"]
    return [
        Command(program, memcheck, r"ERROR SUMMARY: 0 errors", apart),
        Command(program, racecheck, r"RACECHECK SUMMARY: 0 hazards", apart),
    ]


def profile(run: Run) -> list[Command]:
    ncu = [tool("ncu", run), "--clock-control", "none", "--csv", "--log-file", str(run.report_file)]
    ours = ["--kernel-name-base", "mangled", "--kernel-name", "regex:.*equiconv.*"]
    ncu += [*ours, "--launch-count", "10", "--print-kernel-base", "function"]
    return [Command(run.python("profiled"), [*ncu, "--metrics", ",".join(METRICS)])]


def profile_results(run: Run) -> Any:
    """For each kernel that ran, in their order: what ncu read."""
    if not run.report_file.exists():
        return run.written()
    lines = run.report_file.read_text().splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    kernels: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(lines[first:]):
        kernel = kernels.setdefault(row["ID"], {"kernel": row["Kernel Name"].partition("(")[0]})
        name = METRICS.get(row["Metric Name"], row["Metric Name"])
        kernel[name] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
    if not kernels:
        raise ValueError("ncu found no kernel")
    return {"profiled": run.written(), "kernels": list(kernels.values())}


def in_python(part: str) -> Callable[[Run], list[Command]]:
    return lambda run: [Command(run.python(part))]


PARTS = (
    Part("build", 180, build, needed=True),
    Part("smoke", 60, in_python("smoke"), needed=True),
    Part("contract", 150, contract, contract_results),
    Part("sanitizer", 100, sanitizer),
    Part("benchmark", 150, in_python("benchmark")),
    Part("model", 30, in_python("model")),
    Part("graph", 40, in_python("graph")),
    Part("streams", 40, in_python("streams")),
    Part("profile", 60, profile, profile_results, may_fail=True),  # counters may be for administrators only
)


class Missing(Exception):
    """What a part needs is not there; the message is a sentence."""


def tool(name: str, run: Run) -> str:
    """A program of the CUDA toolkit or of Nsight Compute; in a dry run just its name."""
    if run.dry:
        return name
    homes = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    places = [Path(home, "bin", name) for home in homes if home]
    places += sorted(Path("/opt/nvidia/nsight-compute").glob(f"*/{name}"), reverse=True)
    if found := shutil.which(name) or next((str(path) for path in places if path.is_file()), None):
        return found
    raise Missing(f"{name} was not found: on PATH, in CUDA_HOME, in /usr/local/cuda, in /opt/nvidia")


# ---- running them ------------------------------------------------------------------------------------------


def execute(command: Command, run: Run, seconds: float) -> tuple[str, str]:
    """How it ended, "" if well, and what it printed."""
    arguments = [*command.program] if run.dry else [*command.tool, *command.program]
    with run.log_file.open("a") as log:
        log.write(f"$ {shlex.join([*command.tool, *command.program])}\n")
        if run.dry and command.tool:
            log.write(f"  (without a GPU, so without {command.tool[0]})\n")
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=run.environment() | command.environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(max(seconds, 0.1))
            problem = f"exit status {process.returncode}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            problem = "timed out"
        finally:
            end(process)
    with run.log_file.open() as log:
        log.seek(begin)
        printed = log.read()
    if not problem and not run.dry and not re.search(command.proof, printed):
        problem = f"did not print {command.proof!r}"
    return problem, printed


def end(process: subprocess.Popen[bytes]) -> None:
    """First ask, so that a part can write what it has; then make sure of all its children."""
    for sign, grace in ((signal.SIGINT, GRACE), (signal.SIGKILL, GRACE)):
        if process.poll() is None:
            os.killpg(process.pid, sign)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                continue
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def run_part(part: Part, run: Run, seconds: float) -> dict[str, Any]:
    for file in (run.part_file, run.report_file):
        file.unlink(missing_ok=True)
    start = time.monotonic()
    problem, printed, results = "", "", None
    try:
        for command in part.commands(run):
            problem, printed = execute(command, run, seconds - (time.monotonic() - start))
            if problem:
                break
        results = part.results(run)
    except Missing as missing:
        problem = str(missing)
    except (
        OSError,
        subprocess.TimeoutExpired,
        ValueError,
        KeyError,
        xml.etree.ElementTree.ParseError,
    ) as error:
        problem = problem or f"{type(error).__name__}: {error}"
    for file in (run.part_file, run.report_file):
        file.unlink(missing_ok=True)
    record = {"status": problem or "passed", "seconds": round(time.monotonic() - start, 1)}
    if problem:
        record["last_lines"] = printed.splitlines()[-5:]
    return record | {"results": results}


def fingerprint() -> str:
    """Of the sources: results of others are not continued."""
    content = hashlib.sha256()
    for name in SOURCES:
        for path in sorted([ROOT / name, *(ROOT / name).rglob("*")]):
            inside = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in inside.parts and "results" not in inside.parts:
                content.update(str(inside).encode() + path.read_bytes())
    return content.hexdigest()


def load(run: Run) -> dict[str, Any]:
    now = {"sources": fingerprint(), "dry_run": run.dry, "parts": {}}
    if not run.results_file.exists():
        return now
    before: dict[str, Any] = json.loads(run.results_file.read_text())
    for key, what in (("sources", "other sources"), ("dry_run", "a run of the other kind, dry or not")):
        if before[key] != now[key]:
            raise SystemExit(f"gpu_acceptance: {run.results_file} is of {what}; give another folder")
    return before


def save(run: Run, document: dict[str, Any]) -> None:
    half = run.results_file.with_suffix(".tmp")
    half.write_text(json.dumps(document, indent=1) + "\n")
    half.replace(run.results_file)


def finished(name: str, document: dict[str, Any], run: Run) -> bool:
    if document["parts"].get(name, {}).get("status") != "passed":
        return False
    return name != "build" or run.dry or (SITE / "equiconv").is_dir()


def run_all(run: Run, document: dict[str, Any], chosen: Sequence[str], again: bool, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for part in PARTS:
        if part.name not in chosen or (finished(part.name, document, run) and not again):
            continue
        print(f"{part.name} …", flush=True)
        with run.log_file.open("a") as log:
            log.write(f"\n==== {part.name}\n")
        limit = part.limit * (DRY_LIMITS if run.dry else 1)
        record = run_part(part, run, min(limit, deadline - time.monotonic()))
        document["parts"][part.name] = record
        save(run, document)
        print(f"{part.name}: {record['status']}, {record['seconds']:.0f} s", flush=True)
        if part.needed and record["status"] != "passed":
            break


# ---- what is printed last ----------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[object]]) -> str:
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def summary(document: dict[str, Any]) -> str:
    rows: list[Sequence[object]] = [("part", "result", "seconds")]
    blocks = []
    for part in PARTS:
        record = document["parts"].get(part.name, {"status": "not run", "seconds": ""})
        rows.append((part.name, record["status"][:80], record["seconds"]))
        results = record.get("results") or {}
        blocks += [table(shown) for shown in results.get("tables", [])]
        blocks += [f"failed: {name}" for name in results.get("failed", [])[:10]]
    return "\n\n".join([*blocks, table(rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="gpu_acceptance.sh", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where results go")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, everything but the GPU")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--only", choices=names, metavar="PART", help=f"run this part again: {', '.join(names)}"
    )
    only.add_argument(
        "--from", choices=names, dest="first", metavar="PART", help="run this and all after it again"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="for everything (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a part does not outlive us
    chosen = [options.only] if options.only else names[names.index(options.first or names[0]) :]

    options.folder.mkdir(parents=True, exist_ok=True)
    run = Run(options.folder.resolve(), options.dry_run)
    document = load(run)
    run_all(run, document, chosen, bool(options.only or options.first), options.seconds)
    print(f"\n{summary(document)}\n\n{run.results_file}")
    bad = [
        p.name
        for p in PARTS
        if not p.may_fail and document["parts"].get(p.name, {}).get("status") != "passed"
    ]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
