"""Calls of fft_conv: their arguments, and what the CUDA kernels make of them.

Without torch, which takes long to load under the sanitizers.
"""

from __future__ import annotations

import ctypes as c
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .device import DTYPES, Device, Tensor, from_bfloat16, to_bfloat16

MODES = {"causal": 0, "bidirectional": 1, "circular": 2}

# The error's norm against the result's. Half types: the rounding of the result, uniform in its last bit.
TOLERANCE = {"float32": 1e-6, "float64": 1e-14, "bfloat16": 3e-3, "float16": 4e-4}
GRADIENTS = ("grad_x", "grad_filter", "grad_pre_gate", "grad_post_gate", "grad_skip")


class Array(c.Structure):
    """equiconv::Array of csrc/fft_conv.h."""

    _fields_ = [
        ("data", c.c_void_p),
        ("dtype", c.c_int8),
        ("batch", c.c_int64),
        ("channel", c.c_int64),
        ("position", c.c_int64),
    ]


class FftConv(c.Structure):
    _fields_ = [
        ("batch", c.c_int64),
        ("channels", c.c_int64),
        ("length", c.c_int64),
        ("taps", c.c_int64),
        ("mode", c.c_int8),
        ("shared", c.c_bool),
    ]


def arrays(*names: str) -> type[c.Structure]:
    return type("Arrays", (c.Structure,), {"_fields_": [(name, Array) for name in names], "names": names})


Forward = arrays("x", "filter", "pre_gate", "post_gate", "skip", "y")
Backward = arrays(
    *("grad_out", "x", "filter", "pre_gate", "post_gate", "skip"),
    *("grad_x", "grad_filter", "grad_pre_gate", "grad_post_gate", "grad_skip"),
)


def launched(
    device: Device,
    op: str,
    size: c.Structure,
    arguments: tuple[c.Structure, c.Structure],
    results: dict[str, Any],
    places: dict[str, int],
) -> list[Any]:
    """The results of an op's launchers, forward and backward, which stand on the device at `places`."""
    for direction, given in zip(("forward", "backward"), arguments, strict=True):
        error = device.launch(f"{op}_{direction}", size, given)
        assert error == 0, device.report()
    for name, tensor in results.items():
        device.download(places[name], tensor)
    device.free_all()
    return list(results.values())


def array(tensor: Tensor) -> Array:
    return Array(tensor.pointer, DTYPES[tensor.dtype], *tensor.strides)


@dataclass(frozen=True)
class Case:
    length: int
    batch: int = 2
    channels: int = 3
    taps: int = 0  # 0: as many as the mode allows
    mode: str = "causal"
    shared: bool = True
    layout: str = "bdl"
    stored: str = "float32"
    stored_filter: str = ""  # "": like the others
    gates: str = "pre post"
    skip: bool = True
    wanted: tuple[str, ...] = GRADIENTS

    def __str__(self) -> str:
        parts = [self.length, f"{self.batch}x{self.channels}", self.mode, self.layout, self.stored]
        parts += ["shared" if self.shared else "own", self.gates.replace(" ", "+") or "ungated"]
        parts += [f"{self.taps}taps"] if self.taps else []
        parts += [self.stored_filter] if self.stored_filter else []
        parts += [] if self.skip else ["noskip"]
        parts += [] if self.wanted == GRADIENTS else ["+".join(self.wanted)]
        return "-".join(map(str, parts))

    @property
    def filter_taps(self) -> int:
        return self.taps or (2 * self.length - 1 if self.mode == "bidirectional" else self.length)

    def dtype_of(self, name: str) -> str:
        own = name.removeprefix("grad_") in ("filter", "skip")
        return self.stored_filter if own and self.stored_filter else self.stored

    def axes_of(self, name: str) -> tuple[int, ...]:
        if name.endswith("skip"):
            return (1,)
        return (1, 2) if name.endswith("filter") and self.shared else (0, 1, 2)

    def shape_of(self, name: str) -> tuple[int, ...]:
        last = self.filter_taps if name.endswith("filter") else self.length
        return tuple((self.batch, self.channels, last)[axis] for axis in self.axes_of(name))

    def order_of(self, name: str) -> tuple[int, ...]:
        follows_layout = not name.endswith(("filter", "skip"))
        return (0, 2, 1) if follows_layout and self.layout == "bld" else ()

    def arguments(self) -> dict[str, np.ndarray]:
        """(batch, channel, position) whatever the layout, in float64, holding what the stored type can."""
        r = np.random.default_rng(0)
        names = ["x", "filter", "grad_out"] + [f"{gate}_gate" for gate in self.gates.split()]
        names += ["skip"] if self.skip else []
        return {name: rounded(r.standard_normal(self.shape_of(name)), self.dtype_of(name)) for name in names}

    def put(self, device: Device, name: str, value: np.ndarray) -> Tensor:
        return device.put(value, self.dtype_of(name), axes=self.axes_of(name), order=self.order_of(name))

    def empty(self, device: Device, name: str) -> Tensor:
        return device.empty(
            self.shape_of(name), self.dtype_of(name), axes=self.axes_of(name), order=self.order_of(name)
        )

    def run(self, device: Device, arguments: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """y and the gradients that are wanted."""
        arguments = self.arguments() if arguments is None else arguments
        size = FftConv(
            self.batch, self.channels, self.length, self.filter_taps, MODES[self.mode], self.shared
        )
        absent = {"grad_pre_gate": "pre_gate", "grad_post_gate": "post_gate", "grad_skip": "skip"}
        given = {name: self.put(device, name, value) for name, value in arguments.items()}
        y = {"y": self.empty(device, "y")}
        grads = {n: self.empty(device, n) for n in self.wanted if absent.get(n, "x") in arguments}

        inputs = {name: array(tensor) for name, tensor in given.items()}
        grad_out = inputs.pop("grad_out")
        assert device.launch("fft_conv_forward", size, Forward(**inputs, y=array(y["y"]))) == 0, (
            device.report()
        )
        outputs = {name: array(tensor) for name, tensor in grads.items()}
        backward = Backward(**inputs, grad_out=grad_out, **outputs)
        assert device.launch("fft_conv_backward", size, backward) == 0, device.report()

        results = {name: device.get(tensor) for name, tensor in (y | grads).items()}
        device.free(*(tensor.pointer for tensor in (given | y | grads).values()))
        return results

    def expected(self) -> dict[str, np.ndarray]:
        """The definition in plain PyTorch, in float64."""
        import torch  # here alone

        from equiconv.reference.fft_conv import fft_conv

        tensors = {n: torch.tensor(value, requires_grad=True) for n, value in self.arguments().items()}
        grad_out = tensors.pop("grad_out")
        y = fft_conv(**tensors, mode=self.mode)
        gradients = torch.autograd.grad(y, list(tensors.values()), grad_out)
        results = {"y": y} | {f"grad_{name}": g for name, g in zip(tensors, gradients, strict=True)}
        return {name: value.detach().numpy() for name, value in results.items()}

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        """The results that are further from what is expected than rounding explains."""

        def is_right(name: str) -> bool:
            narrow = self.stored if self.stored == self.dtype_of(name) else "float32"
            error = np.linalg.norm(results[name] - expected[name]) / np.linalg.norm(expected[name])
            return bool(error < TOLERANCE[narrow])

        return [name for name in results if not is_right(name)]


# A few of every kind: small enough for the slower builds, and between them all code paths but length.
SMALL = [
    Case(1), Case(31, mode="bidirectional", channels=5),
    Case(100, layout="bld", shared=False, mode="circular"),
    Case(257, stored="bfloat16", stored_filter="float32"), Case(40, stored="float64", mode="bidirectional"),
    Case(600, batch=9, channels=1, mode="circular"),
]  # fmt: skip
THREE_LAUNCHES = Case(16400, batch=1, channels=1, mode="circular")


def rounded(a: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return from_bfloat16(to_bfloat16(a)).astype(np.float64)
    return a.astype(dtype).astype(np.float64)


def save(path: Path, device: Device, cases: list[Case]) -> None:
    """Runs the cases and keeps their results: for a process of its own, see test_cuda_on_cpu.py."""
    results = {f"{i}/{name}": a for i, case in enumerate(cases) for name, a in case.run(device).items()}
    if text := device.report():
        sys.exit(text)
    np.savez(path, **results)
