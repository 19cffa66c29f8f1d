"""The parts of gpu_acceptance.py that need torch: ``python -m equiconv.bench.gpu_parts PART``.

Each writes what it found as JSON, as it goes. With ``--device cpu`` everything runs but the GPU, in small.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import equiconv

from . import MODELS, OPS, gpu_cases, harness
from .bench_conditioned_conv import ConditionedCase
from .bench_gate import GateCase
from .bench_orchid_mix import MixCase
from .bench_pair_invariants import InvariantsCase
from .bench_pair_message import PairCase
from .bench_pair_moments import MomentsCase
from .harness import Case, Entry, Step
from .model import DEVICES, Device

# fft_conv: one launch and three, a batch summed in parts, both layouts, every dtype: all kernels, all paths.
SMALL: tuple[Case, ...] = tuple(
    Case(op="fft_conv", length=length, batch=batch, channels=channels, direction="backward", **other)
    for length, batch, channels, other in (
        (1024, 2, 3, {}),
        (1000, 300, 1, {"filter": "shared", "gates": False}),
        (100, 3, 20, {"layout": "bld", "dtype": "bfloat16", "mode": "bidirectional"}),
        (300, 2, 3, {"dtype": "float64", "mode": "circular", "filter": "shared"}),
        (20000, 1, 2, {"layout": "bld", "mode": "circular"}),
        (33000, 2, 1, {"filter": "shared", "dtype": "float16"}),
    )
)
# pair_message: one launch and two, complete clouds, rows of whole 16 bytes and others, every dtype.
SMALL += tuple(
    PairCase(length=length, degree=degree, orientations=3, functions=functions, channels=channels,
             direction="backward", **other)
    for length, degree, functions, channels, other in (
        (40, 7, 20, 24, {}),
        (40, 7, 3, 5, {"dtype": "bfloat16"}),
        (60, 5, 64, 72, {"dtype": "bfloat16", "cloud": 5}),
        (300, 16, 16, 8, {"dtype": "float16"}),
        (30, 5, 18, 9, {"dtype": "float64"}),
        (40, 6, 20, 24, {"antipodal": True}),
    )
)  # fmt: skip
# long_conv_step: squares of products, and from 512 tokens on of transforms.
STEPS = Case(op="long_conv_step", length=150, batch=3, channels=24, layout="bld", filter="shared")
FILTER = Case(
    op="implicit_filter", length=150, batch=1, channels=24, filter="shared", gates=False, direction="backward"
)
# One of each other op that has kernels.
SMALL += (
    GateCase(length=40, channels=24, direction="backward"),
    Case(op="short_conv", length=100, batch=2, channels=8, layout="bld", direction="backward"),
    Case(op="short_conv_gated", length=100, batch=2, channels=8, layout="bld", direction="backward"),
    Case(op="spectral_conv", length=128, batch=2, channels=3, mode="circular", direction="backward"),
    Case(op="spectral_conv", length=256, batch=3, channels=2, mode="circular", filter="shared", layout="bld",
         direction="backward"),
    STEPS,
    replace(STEPS, length=640, batch=1, channels=40, dtype="bfloat16", gates=False),
    replace(STEPS, channels=5, filter="per-sample", dtype="float64"),
    FILTER,
    ConditionedCase(length=128, batch=2, channels=3, direction="backward"),
    ConditionedCase(length=256, batch=2, channels=3, keyed=True, direction="backward"),
    MixCase(length=128, batch=2, channels=8, direction="backward"),
    MixCase(length=256, batch=2, channels=3, keyed=True, layout="bdl", dtype="bfloat16",
            direction="backward"),
    MomentsCase(length=30, degree=5, orientations=2, functions=6, channels=9, direction="backward"),
    InvariantsCase(length=50, orientations=6, direction="backward"),
    InvariantsCase(length=50, orientations=1, direction="backward"),
)  # fmt: skip


COMPILE_UNTIL = 100.0  # seconds of the benchmark, after which nothing more is given to torch.compile


@dataclass(frozen=True)
class Job:
    device: str
    out: Path
    results: Path

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    def write(self, found: Any) -> None:
        half = self.out.with_suffix(".tmp")
        half.write_text(json.dumps(found) + "\n")
        half.replace(self.out)

    def of(self, part: str) -> Any:
        """What an earlier part wrote, or None."""
        if not self.results.exists():
            return None
        return json.loads(self.results.read_text())["parts"].get(part, {}).get("results")

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def wait(self) -> None:
        """Keep the current stream busy for about thirty milliseconds."""
        if self.cuda:
            torch.cuda._sleep(60_000_000)  # type: ignore[no-untyped-call]


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise SystemExit(f"gpu_acceptance: {sentence}")


# ---- smoke -------------------------------------------------------------------------------------------------


def smoke(job: Job) -> None:
    """The library that was built is the one that runs, on the GPU, and computes the right thing."""
    info = equiconv.build_info()
    facts: dict[str, Any] = {**harness.machine(job.device), "library": str(Path(equiconv.__file__).parent)}
    facts |= {"build": info, "cuda": torch.version.cuda}
    if job.cuda:
        require(bool(info["nvcc"]) and info["cuda_loaded"], "equiconv was built without CUDA kernels")
        properties = torch.cuda.get_device_properties(0)
        facts["multiprocessors"] = properties.multi_processor_count
        facts["l2_bytes"] = properties.L2_cache_size
        facts["memory_bytes"] = properties.total_memory
        facts["nvidia_smi"] = nvidia_smi()
    job.write(facts)
    facts["errors"] = {}
    for case in SMALL:
        error = harness.error(OPS[case.op], Entry(replace(case, device=job.device), "equiconv"))
        facts["errors"][describe(case)] = error
        job.write(facts)
        tolerance = harness.TOLERANCE[case.dtype]
        require(error <= tolerance, f"{describe(case)} is off by {error:.1e}, allowed are {tolerance:.1e}")


def nvidia_smi() -> str:
    if not (program := shutil.which("nvidia-smi")):
        return "not found"
    asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
    command = [program, f"--query-gpu={asked}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return (done.stdout or done.stderr).strip()


def describe(case: Case) -> str:
    if isinstance(case, (PairCase, InvariantsCase)):
        sizes = (f"{name}={value}" for name, value in case.sizes.items())
        return " ".join([case.op, *sizes, case.dtype])
    words = [
        case.op,
        case.length,
        f"{case.batch}x{case.channels}",
        case.dtype,
        case.layout,
        case.mode,
        case.filter,
    ]
    return " ".join(map(str, words if case.gates else [*words, "ungated"]))


# ---- sanitized ---------------------------------------------------------------------------------------------


def sanitized(job: Job) -> None:
    """A few calls with as few other kernels as can be: tensors are made on the CPU, and compared there."""
    errors = {}
    for case in SMALL:
        op = OPS[case.op]
        inputs = op.inputs(case)
        exact = {name: harness.in_float64(tensor) for name, tensor in inputs.items()}
        dtype = next(iter(inputs.values())).dtype
        results = several(op.reference(**exact, **op.options(case)))
        backward = case.direction == "backward"
        grad_out = [torch.randn(y.shape).to(dtype) for y in results if backward]
        options = op.options(replace(case, device=job.device))
        here = outcome(op.contestants["equiconv"], inputs, grad_out, options, job.device)
        there = outcome(op.reference, exact, [g.double() for g in grad_out], op.options(case), "cpu")
        error = max(
            float((harness.in_float64(a) - b).abs().max() / b.abs().max())
            for a, b in zip(here, there, strict=True)
        )
        errors[describe(case)] = error
        job.write({"errors": errors})
        require(error <= harness.TOLERANCE[case.dtype], f"{describe(case)} is off by {error:.1e}")


def several(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def outcome(
    function: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    grad_out: Sequence[Tensor],
    options: Mapping[str, Any],
    device: str,
) -> list[Tensor]:
    """The results and, where there is a grad_out, all gradients, brought to the CPU."""
    leaves = {name: tensor.to(device).requires_grad_(bool(grad_out)) for name, tensor in inputs.items()}
    results = several(function(**leaves, **options))
    gradients: Sequence[Tensor] = ()
    if grad_out:
        gradients = torch.autograd.grad(results, tuple(leaves.values()), [g.to(device) for g in grad_out])
    return [tensor.detach().cpu() for tensor in (*results, *gradients)]


# ---- benchmark and model -----------------------------------------------------------------------------------


def benchmark(job: Job) -> None:
    """Ceilings first, then every group; each result is checked in small before it is timed."""
    found: dict[str, Any] = {"ceilings": ceilings(job), "rows": []}
    job.write(found)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    plan = gpu_cases.groups("cuda") if job.cuda else gpu_cases.groups("cpu", (64, 128), 2**11)
    begin = time.monotonic()
    for group in plan:
        compiles = any(entry.contestant == "compile" for entry in group)
        if compiles and time.monotonic() - begin > COMPILE_UNTIL:
            found.setdefault("failed", []).append(f"compile, {describe(group[0].case)}: no time was left")
            job.write(found)
            continue
        for case in dict.fromkeys(entry.case for entry in group):
            few = replace(case, batch=2, channels=min(case.channels, 16))
            error = harness.error(OPS[case.op], Entry(few, "equiconv"))
            allowed = harness.TOLERANCE[case.dtype]
            require(error <= allowed, f"{describe(few)} is off by {error:.1e}, allowed are {allowed:.1e}")
        torch._dynamo.reset()  # a graph for each size: what is compared with must not be a general one
        try:
            results = harness.run_group(OPS, group, seconds=0.5 if job.cuda else 0.01)
        except Exception as error:
            if not compiles:
                raise
            # torch.compile's, as where it finds no compiler: the others have run before.
            sentence = (str(error).strip().splitlines() or [""])[0]
            what = f"compile, {describe(group[0].case)}: {type(error).__name__}: {sentence}"
            found.setdefault("failed", []).append(what)
            job.write(found)
            continue
        found["rows"] += [
            {
                **asdict(entry.case),
                "contestant": entry.contestant,
                "median": timing.median,
                "spread": timing.spread,
                "fastest": min(timing.seconds),
                "repeats": len(timing.seconds),
            }
            for entry, timing in results.items()
        ]
        job.write(found)
        del results
    if job.cuda:
        found["nvidia_smi"] = nvidia_smi()
        job.write(found)


def ceilings(job: Job) -> dict[str, float]:
    """What this GPU does at best: bytes a second copied, operations a second of matrix products."""
    timer = harness.timer_for(job.device)
    copied, n = (2**31, 8192) if job.cuda else (2**20, 64)
    source = torch.randn(copied // 4, device=job.device)
    target = torch.empty_like(source)

    def typical(step: Step) -> float:
        step()
        step()
        return statistics.median(timer(step) for _ in range(10))

    found = {"copy_bytes": 2 * copied / typical(lambda: target.copy_(source))}
    for dtype in ("bfloat16", "float32"):
        a, b = torch.randn(2, n, n, device=job.device).to(harness.DTYPES[dtype]).unbind()
        out = torch.empty_like(a)
        found[f"product_{dtype}"] = 2 * n**3 / typical(functools.partial(torch.mm, a, b, out=out))
    return found


def modelled(name: str) -> Device | None:
    """The device of the model that a GPU's name stands for."""
    return next((device for device in DEVICES.values() if device.name in re.split(r"[\s-]+", name)), None)


def model(job: Job) -> None:
    """What was measured beside what was predicted, and beside the baselines."""
    measured = job.of("benchmark")
    require(bool(measured and measured["rows"]), "nothing has been measured to compare with")
    device = modelled(torch.cuda.get_device_name()) if job.cuda else DEVICES["h200"]
    times = {(OPS[row["op"]].read(row), row["contestant"]): row["median"] for row in measured["rows"]}
    rows = []
    for (case, contestant), seconds in times.items():
        if contestant != "equiconv":
            continue
        row: dict[str, Any] = {**asdict(case), "measured": seconds}
        for (other, name), theirs in times.items():
            if other == case and name != "equiconv":
                row[name] = theirs / seconds
        if device and case.op in MODELS:
            prediction = MODELS[case.op](case, device)
            row |= {"floor": prediction.floor, "binds": prediction.binds, "terms": prediction.terms}
            row["times_floor"] = seconds / prediction.floor
        rows.append(row)
    shown = tables(rows, measured["ceilings"])
    job.write({"device": device and device.name, "rows": rows, "tables": shown})


def tables(rows: list[dict[str, Any]], ceilings: Mapping[str, float]) -> list[list[list[str]]]:
    """Milliseconds, times the floor and what binds there, and how many times as long others take."""
    others = (*gpu_cases.BASELINES, "compile", "parts")
    cells = [["L", "", "dtype", "", "filter", "ms", "× floor", "binds", *others]]
    for row in rows:
        direction = "both" if row["direction"] == "backward" else "forward"
        filter = row["filter"] + (" spectrum" if row["op"] == "spectral_conv" else "")
        line = [
            str(row["length"]),
            direction,
            row["dtype"],
            row["layout"],
            filter,
            f"{1e3 * row['measured']:.3f}",
        ]
        line += [f"{row['times_floor']:.2f}", row["binds"]] if "floor" in row else ["", ""]
        line += [f"{row[name]:.2f}" if name in row else "" for name in others]
        cells.append(line)
    return [
        cells,
        [["ceiling", "1e12 a second"], *([n, f"{rate / 1e12:.3g}"] for n, rate in ceilings.items())],
    ]


# ---- graph and streams -------------------------------------------------------------------------------------


def steps(job: Job) -> list[tuple[str, dict[str, Tensor], Step]]:
    """Calls with the tensors that they read."""
    made = []
    for case in (SMALL[0], SMALL[1], SMALL[4], SMALL[6], FILTER, STEPS):
        for direction in harness.DIRECTIONS if case is not STEPS else ("forward",):
            here = replace(case, direction=direction, device=job.device)
            op = OPS[here.op]
            inputs = op.inputs(here)
            step = harness.step(op.contestants["equiconv"], inputs, op.options(here), direction)
            made.append((f"{describe(here)} {direction}", inputs, step))
    return made


def tensors_of(result: Any) -> list[Tensor]:
    return [t.detach().clone() for t in several(result)]


def change(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Other tensors of the same kind."""
    return {name: torch.flip(tensor, (-1,)) * 0.5 for name, tensor in inputs.items()}


def overwrite(inputs: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        inputs[name].copy_(value)


def same_bits(ours: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def graph(job: Job) -> None:
    """A captured call gives the bits of an ordinary one, also for other inputs than those of the capture."""
    found: dict[str, Any] = {"seconds": {}}
    for name, inputs, step in steps(job):
        replay, outputs = capture(job, step)
        new = change(inputs)
        for _ in range(2):
            overwrite(inputs, new)
            expected = tensors_of(step())
            for tensor in outputs():
                tensor.fill_(math.nan)
            replay()
            job.synchronize()
            require(same_bits(tensors_of(tuple(outputs())), expected), f"{name}: a replay has other bits")
            new = change(new)
        found["seconds"][name] = {"call": per_call(job, step), "replay": per_call(job, replay)}
        job.write(found)


def capture(job: Job, step: Step) -> tuple[Step, Callable[[], list[Tensor]]]:
    """What repeats the step, and what it wrote. On a CPU the step itself."""
    result: Any
    if not job.cuda:
        kept: list[Any] = [step()]

        def again() -> None:
            kept[0] = step()

        return again, lambda: list(kept[0]) if isinstance(kept[0], tuple) else [kept[0]]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        result = step()
    outputs = list(result) if isinstance(result, tuple) else [result]
    return recorded.replay, lambda: outputs


def per_call(job: Job, step: Step, calls: int = 50) -> float:
    """Seconds on the clock for each of many calls one after another: what a program with small ones pays."""
    step()
    job.synchronize()
    start = time.perf_counter()
    for _ in range(calls if job.cuda else 2):
        step()
    job.synchronize()
    return (time.perf_counter() - start) / (calls if job.cuda else 2)


def streams(job: Job) -> None:
    """Work goes to the current stream, does not wait for it, and two streams do not disturb each other."""

    def on(stream: Any) -> Any:
        return torch.cuda.stream(stream) if job.cuda else contextlib.nullcontext()

    made = steps(job)
    one: Any = torch.cuda.Stream() if job.cuda else None  # type: ignore[no-untyped-call]
    two: Any = torch.cuda.Stream() if job.cuda else None  # type: ignore[no-untyped-call]
    for name, inputs, step in made:
        old, new = {n: t.clone() for n, t in inputs.items()}, change(inputs)
        overwrite(inputs, new)
        expected = tensors_of(step())
        overwrite(inputs, old)
        job.synchronize()
        with on(one):
            step()  # so that its memory is there
            job.synchronize()
            job.wait()
            overwrite(inputs, new)
            result = step()  # on any other stream it would find the old tensors
        if job.cuda:
            require(not one.query(), f"{name}: the host waited for the GPU")
        job.synchronize()
        require(same_bits(tensors_of(result), expected), f"{name}: not on the current stream")

    for (name, _, step), (other_name, _, other_step) in zip(made, reversed(made), strict=True):
        alone, other_alone = tensors_of(step()), tensors_of(other_step())
        job.synchronize()
        with on(one):
            results = [step() for _ in range(10)]
        with on(two):
            other_results = [other_step() for _ in range(10)]
        job.synchronize()
        alike = all(same_bits(tensors_of(r), alone) for r in results)
        alike = alike and all(same_bits(tensors_of(r), other_alone) for r in other_results)
        require(alike, f"{name} and {other_name} disturb each other on two streams")
    job.write({"calls": [name for name, _, _ in made]})


# ---- profiled ----------------------------------------------------------------------------------------------


def profiled(job: Job) -> None:
    """One call of what is furthest from its floor, for a profiler to look at."""
    compared = job.of("model")
    rows = [row for row in compared["rows"] if "times_floor" in row] if compared else []
    case = gpu_cases.base_case(4096, "backward", job.device)
    if rows:
        worst = max(rows, key=lambda row: float(row["times_floor"]))
        case = OPS[worst["op"]].read(worst)
    if case.length > 2**14:  # one portion of the workspace: a few launches, not a hundred
        case = replace(case, batch=1, channels=max(1, 2**21 // case.length))
    job.write(asdict(case))
    op = OPS[case.op]
    step = harness.step(op.contestants["equiconv"], op.inputs(case), op.options(case), case.direction)
    step()
    job.synchronize()


PARTS = {part.__name__: part for part in (smoke, sanitized, benchmark, model, graph, streams, profiled)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m equiconv.bench.gpu_parts")
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    PARTS[options.part](Job(options.device, options.out, options.results))


if __name__ == "__main__":
    main()
