"""gate against the PyTorch that people write, compiled too, and against a copy of the same bytes.

    python -m equiconv bench --preset gate

(rows, channels) past the caches, values and gates in two tensors, both biases. What is promised is promised
of two threads. The copy (copy.cpp, compiled by g++ when it is first asked for) reads as many arrays of that
size as the kernels do and writes as many, past the caches: two and one forward, three and two backward.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

import equiconv
from equiconv.reference import gate as reference

from .harness import DTYPES, Case, Entry, Inputs, Op, Results, ratio
from .promises import Point, Promise


@dataclass(frozen=True, kw_only=True)
class GateCase(Case):
    """So many rows, `length` in a batch of one, and channels."""

    op: str = "gate"
    batch: int = 1
    activation: str = "silu"

    settings: ClassVar[tuple[str, ...]] = ("op", "direction", "activation", "dtype", "device")

    @property
    def sizes(self) -> dict[str, str]:
        return {"rows": str(self.length), "D": str(self.channels)}


def inputs(case: Case) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch * case.length, case.channels)
    shapes = {"x": shape, "gate": shape, "bias": shape[1:], "gate_bias": shape[1:]}
    tensors = {name: torch.randn(size, generator=generator) for name, size in shapes.items()}
    return {name: tensor.to(case.device, DTYPES[case.dtype]) for name, tensor in tensors.items()}


def eager(x: Tensor, gate: Tensor, bias: Tensor, gate_bias: Tensor, activation: str = "sigmoid") -> Tensor:
    """The expression in the code of models."""
    return (x + bias) * reference.ACTIVATIONS[activation](gate + gate_bias)


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "copy.so"
        source = Path(__file__).with_name("copy.cpp")
        subprocess.run(
            ["g++", "-O2", "-shared", "-fPIC", "-pthread", "-std=c++17", str(source), "-o", str(made)],
            check=True,
        )
        return ctypes.CDLL(str(made))


def _copy(read: list[Tensor], count: int) -> tuple[Tensor, ...]:
    """As many new tensors, written from those."""
    written = [torch.empty_like(read[0]) for _ in range(count)]
    to, source = (
        (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors)) for tensors in (written, read)
    )
    sizes = read[0].nbytes // 4, torch.get_num_threads()
    _library().copy_bytes(to, count, source, len(read), ctypes.c_int64(sizes[0]), sizes[1])
    return tuple(written)


class Copy(torch.autograd.Function):
    """The bytes of the kernels, and nothing right in them."""

    @staticmethod
    def forward(ctx, x: Tensor, gate: Tensor, bias: Tensor, gate_bias: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, gate, bias)
        return _copy([x, gate], 1)[0]

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        x, gate, bias = ctx.saved_tensors
        return *_copy([grad_out, x, gate], 2), bias, bias


def copy(x: Tensor, gate: Tensor, bias: Tensor, gate_bias: Tensor, activation: str) -> Tensor:
    y: Tensor = Copy.apply(x, gate, bias, gate_bias)  # type: ignore[no-untyped-call]
    return y


GATE = Op(
    name="gate",
    inputs=inputs,
    options=lambda case: {"activation": case.activation} if isinstance(case, GateCase) else {},
    contestants={"equiconv": equiconv.gate, "eager": eager, "copy": copy},
    reference=reference.gate,
)

# ---- the promises ------------------------------------------------------------------------------------------

THREADS = 2
ACTIVATIONS = ("sigmoid", "silu", "gelu", "relu", "tanh", "identity")
BULK = GateCase(length=8192, channels=1024)  # 32 MB a tensor


def case_of(activation: str, direction: str) -> GateCase:
    return replace(BULK, activation=activation, direction=direction)


def times(baseline: str, direction: str, *, inverse: bool = False) -> Callable[[Results], Iterator[Point]]:
    """How many times as long the baseline takes as equiconv; inverse: equiconv as the baseline."""

    def points(results: Results) -> Iterator[Point]:
        for activation in ACTIVATIONS:
            case = case_of(activation, direction)
            value = ratio(results, case, baseline)
            yield 1 / value if inverse else value, case

    return points


def cost_of_bfloat16(results: Results) -> Iterator[Point]:
    case = case_of("silu", "forward")
    half = replace(case, dtype="bfloat16")
    yield results[Entry(half, "equiconv")].median / results[Entry(case, "equiconv")].median, half


PROMISES = (
    Promise("forward: 3 times as fast as eager", 3.0, times("eager", "forward"), True),
    Promise("forward and backward: 3 times as fast as eager", 3.0, times("eager", "backward"), True),
    Promise(
        "forward: within 1.3 times a copy of the same bytes",
        1.3,
        times("copy", "forward", inverse=True),
        False,
    ),
    Promise(
        "forward and backward: within 1.3 times a copy of the same bytes",
        1.3,
        times("copy", "backward", inverse=True),
        False,
    ),
    Promise("bfloat16 takes no longer than float32", 1.0, cost_of_bfloat16, False),
)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns."""
    plan = []
    for direction in ("forward", "backward"):
        for activation in ACTIVATIONS:
            case = case_of(activation, direction)
            entries = [Entry(case, contestant) for contestant in ("equiconv", "eager", "copy")]
            if (activation, direction) == ("silu", "forward"):
                entries.append(Entry(replace(case, dtype="bfloat16"), "equiconv"))
            plan.append(entries)
    return plan
