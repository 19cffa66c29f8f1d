"""What is timed, and how.

A *case* is one op at one size in one setting. A *contestant* is one way to compute it: ``equiconv`` or
a baseline. All contestants of a group of cases run in one process and take turns, so that whatever
slows the machine down for a moment slows down all of them; every ratio is of medians of one such run.
"""

from __future__ import annotations

import gc
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

import equiconv

Inputs = dict[str, Tensor]
Convolution = Callable[..., Any]  # a tensor, or a tuple of them
Step = Callable[[], object]
Timer = Callable[[Step], float]
Key = TypeVar("Key", bound=Hashable)

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DIRECTIONS = ("forward", "backward")
MODES = ("causal", "bidirectional", "circular")
LAYOUTS = ("bdl", "bld")
FILTERS = ("per-sample", "shared")
BASELINES = ("eager", "handwritten", "compile")

# How far a result may be from the float64 reference, relative to its largest value.
TOLERANCE = {"float64": 1e-11, "float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}

# B * D * L where neither batch nor channels are given: past the caches.
ELEMENTS = {"cpu": 2**23, "cuda": 2**26}


def size(number: int) -> str:
    """4096 as "4k": lengths as people say them."""
    for unit, suffix in ((2**20, "M"), (2**10, "k")):
        if number % unit == 0:
            return f"{number // unit}{suffix}"
    return str(number)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One op at one size in one setting; "backward" is the forward pass and the backward pass."""

    op: str
    length: int
    batch: int
    channels: int
    dtype: str = "float32"
    direction: str = "forward"
    mode: str = "causal"
    layout: str = "bdl"
    filter: str = "per-sample"
    gates: bool = True
    device: str = "cpu"

    settings: ClassVar[tuple[str, ...]] = (
        "op",
        "direction",
        "mode",
        "layout",
        "dtype",
        "filter",
        "gates",
        "device",
    )  # in the order in which they are shown

    @property
    def sizes(self) -> dict[str, str]:
        """What is shown of its sizes."""
        return {"L": size(self.length), "B × D": f"{self.batch} × {self.channels}"}

    @property
    def elements(self) -> int:
        return self.batch * self.channels * self.length


@dataclass(frozen=True)
class Op:
    """An op as the harness sees it: its inputs, its contestants and its definition."""

    name: str
    inputs: Callable[[Case], Inputs]
    options: Callable[[Case], dict[str, Any]]
    contestants: Mapping[str, Convolution]
    reference: Convolution
    case: type[Case] = Case  # what its cases are

    def read(self, row: Mapping[str, Any]) -> Case:
        """The case that was written down with its fields among others."""
        return self.case(**{field.name: row[field.name] for field in fields(self.case)})

    def contestant(self, name: str) -> Convolution:
        if name == "compile":
            return torch.compile(self.reference, dynamic=False)
        return self.contestants[name]


@dataclass(frozen=True)
class Entry:
    """One contestant in one case: what a time belongs to."""

    case: Case
    contestant: str


@dataclass(frozen=True)
class Timing:
    """The times of one entry, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


Results = dict[Entry, Timing]


def ratio(results: Results, case: Case, contestant: str) -> float:
    """How many times as long as equiconv a contestant takes in a case."""
    return results[Entry(case, contestant)].median / results[Entry(case, "equiconv")].median


def memory(device: str) -> int:
    """Bytes that there are."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sizes(length: int, elements: int) -> tuple[int, int]:
    """Batch and channels that make B * D * L about `elements`, for a batch between 2 and 8."""
    rows = max(4, elements // length)
    batch = min(8, max(2, rows // 64))
    return batch, max(1, rows // batch)


def random_inputs(case: Case, **shapes: tuple[int, ...]) -> Inputs:
    """The tensors every op takes, and beside them `shapes`: normal numbers, the same every time."""
    generator = torch.Generator(case.device).manual_seed(0)
    shape = (case.batch, case.channels, case.length)
    if case.layout == "bld":
        shape = (case.batch, case.length, case.channels)
    gates = {"pre_gate": shape, "post_gate": shape} if case.gates else {}
    return {
        name: torch.randn(size, generator=generator, device=case.device).to(DTYPES[case.dtype])
        for name, size in {"x": shape, **shapes, **gates, "skip": (case.channels,)}.items()
    }


def step(convolution: Convolution, inputs: Inputs, options: Mapping[str, Any], direction: str) -> Step:
    """What is timed: the convolution, or the convolution and all its gradients."""
    if direction == "forward":

        def forward() -> Any:
            with torch.no_grad():
                return convolution(**inputs, **options)

        return forward

    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    wanted = tuple(leaves.values())
    with torch.no_grad():
        grads = [torch.randn_like(result) for result in results_of(convolution(**leaves, **options))]

    def backward() -> tuple[Tensor, ...]:
        results = results_of(convolution(**leaves, **options))
        return (*(r.detach() for r in results), *torch.autograd.grad(results, wanted, grads))

    return backward


def results_of(returned: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of an op with one result or several."""
    return returned if isinstance(returned, tuple) else (returned,)


def cpu_timer(run: Step) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class CudaTimer:
    """Time on the GPU alone, of a step that finds nothing of its own in the L2 cache.

    The GPU is kept busy meanwhile, so that all of the step is queued before it begins.
    """

    LEAD = 2_000_000  # clocks, about a millisecond: longer than any step takes to launch

    def __init__(self) -> None:
        l2 = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self.others = torch.zeros(2 * l2 // 4, device="cuda")

    def __call__(self, run: Step) -> float:
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda._sleep(self.LEAD)  # type: ignore[no-untyped-call]
        self.others.sum()  # read: what is written would have to leave the cache while the step is timed
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def timer_for(device: str) -> Timer:
    return CudaTimer() if device == "cuda" else cpu_timer


def time_in_turns(
    steps: Mapping[Key, Step],
    *,
    timer: Timer = cpu_timer,
    seconds: float,
    rounds: tuple[int, int] = (5, 100),
    on_round: Callable[[float], None] = lambda done: None,
) -> dict[Key, Timing]:
    """Time the steps in turns, for about `seconds` but within the bounds of `rounds`.

    Every step runs twice before, untimed. The order is reversed every other round, so that no step
    always runs in the wake of the same other one.
    """
    fewest, most = rounds
    for run in steps.values():
        run()
        run()
    times: dict[Key, list[float]] = {key: [] for key in steps}
    order = list(steps)
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for count in range(1, most + 1):
            for key in order:
                times[key].append(timer(steps[key]))
            order.reverse()
            elapsed = time.perf_counter() - start
            done = min(1.0, max(count / most, elapsed / max(seconds, 1e-9)))
            on_round(min(done, count / fewest))
            if count >= fewest and elapsed >= seconds:
                break
    finally:
        if collecting:
            gc.enable()
    return {key: Timing(tuple(values)) for key, values in times.items()}


def run_group(
    ops: Mapping[str, Op],
    entries: Sequence[Entry],
    *,
    seconds: float,
    on_round: Callable[[float], None] = lambda done: None,
) -> Results:
    """Time the entries of a group in turns; contestants of a case work on the same tensors."""
    inputs = {case: ops[case.op].inputs(case) for case in dict.fromkeys(e.case for e in entries)}
    steps = {}
    for entry in entries:
        case, op = entry.case, ops[entry.case.op]
        convolution = op.contestant(entry.contestant)
        steps[entry] = step(convolution, inputs[case], op.options(case), case.direction)
    return time_in_turns(steps, timer=timer_for(entries[0].case.device), seconds=seconds, on_round=on_round)


def error(op: Op, entry: Entry) -> float:
    """The largest relative error of an entry's results against the reference in float64."""
    case = entry.case
    inputs = op.inputs(case)
    exact_inputs = {name: in_float64(tensor) for name, tensor in inputs.items()}
    results = []
    for convolution, tensors in (
        (op.contestant(entry.contestant), inputs),
        (op.reference, exact_inputs),
    ):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        out = results_of(convolution(**leaves, **op.options(case)))
        torch.manual_seed(0)  # the gradients given are random, in the dtype of the case
        given = [torch.randn(r.shape).to(r.device, DTYPES[case.dtype]).to(r.dtype) for r in out]
        grads: Iterable[Tensor] = ()
        if case.direction == "backward":
            grads = torch.autograd.grad(out, tuple(leaves.values()), given)
        results.append([*(r.detach() for r in out), *grads])
    return max(
        float((in_float64(value) - exact).abs().max() / exact.abs().max().clamp_min(1e-300))
        for value, exact in zip(*results, strict=True)
    )


def in_float64(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def has_compiler() -> bool:
    """Whether torch.compile will find a C++ compiler."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return any(shutil.which(name) for name in names if name)


def machine(device: str) -> dict[str, Any]:
    """Where the numbers come from."""
    facts = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "capability": equiconv.build_info().get("cpu_capability"),
        "equiconv": equiconv.build_info().get("version"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
