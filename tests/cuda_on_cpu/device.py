"""The library's CUDA launchers on NumPy arrays, as run by the emulator."""

from __future__ import annotations

import ctypes as c
import functools
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

DTYPES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}  # equiconv::DType of csrc/dtype.h


def to_bfloat16(a: np.ndarray) -> np.ndarray:
    """NumPy has no bfloat16: its bits, rounded to nearest even, as uint16."""
    bits = np.asarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(a: np.ndarray) -> np.ndarray:
    return (a.astype(np.uint32) << 16).view(np.float32)


@dataclass
class Tensor:
    """What a kernel is given: memory of the device, and how (batch, channel, position) index it."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, int, int]
    pointer: c.c_void_p
    stored: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Accesses:
    """The loads or the stores of one size of one source line, as one kernel has made them."""

    kernel: str
    at: str  # file:line
    memory: str  # shared or global
    kind: str  # load or store
    bytes: int  # of a thread's access
    count: int  # instructions of a warp
    units: int  # wavefronts of shared memory, 32-byte sectors of global memory
    ideal: int  # the fewest that hold the bytes


@dataclass
class Device:
    """One build of the kernels (see build.py)."""

    path: Path
    build: str = "fast"
    lib: c.CDLL = field(init=False)
    arrays: dict[int, np.ndarray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.lib = c.CDLL(str(self.path))
        self.lib.cuda_on_cpu_report.restype = c.c_char_p

    # ---- the emulator ----

    def schedule(self, order: str) -> None:
        """forward, reverse, random:SEED or warp:SEED."""
        self.lib.cuda_on_cpu_schedule(order.encode())

    def architecture(self, sm: int) -> None:
        """Which device to be: 80, 86 or 90. They differ in how much shared memory a block can have."""
        self.lib.cuda_on_cpu_architecture(sm)

    def report(self) -> str:
        """What the emulator found since the last call."""
        text = self.lib.cuda_on_cpu_report().decode()
        self.lib.cuda_on_cpu_clear()
        if self.build == "race":
            self.memory_reset()
        return text

    @functools.cached_property
    def _functions(self) -> dict[int, str]:
        """Offset in the library, and name, of every function."""
        symbols = subprocess.check_output(["nm", "-C", "--defined-only", str(self.path)], text=True)
        lines = (line.split(maxsplit=2) for line in symbols.splitlines())
        code = (line for line in lines if line[1] in "tTwW")  # a thread's data have offsets of their own
        return {int(at, 16): name.replace("(anonymous namespace)::", "") for at, _, name in code}

    def fuses(self, op: str, length: int, dtype: str) -> bool:
        """Whether an op that has kernels for some lengths has them for this one."""
        function = self.lib[f"{op}_fuses"]
        function.restype = c.c_bool
        return bool(function(c.c_int64(length), c.c_int8(DTYPES[dtype])))

    def launched(self) -> set[str]:
        """The names of the kernels that have run, each with its template arguments."""
        self.lib.cuda_on_cpu_launched.restype = c.c_char_p
        offsets = self.lib.cuda_on_cpu_launched().decode().split()
        return {self._kernel(offset) for offset in offsets}

    def _kernel(self, offset: str) -> str:
        return re.sub(r"\w+::", "", re.search(r"(\w+(?:<.*>)?)\(", self._functions[int(offset, 16)])[1])

    def memory_table(self) -> list[Accesses]:
        """What every kernel's loads and stores took, since the last reset."""
        self.lib.cuda_on_cpu_memory_table.restype = c.c_char_p
        rows = []
        for line in self.lib.cuda_on_cpu_memory_table().decode().splitlines():
            kernel, at, memory, kind, *counts = line.split()
            rows.append(Accesses(self._kernel(kernel), at, memory, kind, *map(int, counts)))
        return rows

    def accesses(self, run: Callable[[], object]) -> list[Accesses]:
        """What the kernels that `run` launches take, one thread after the other; nothing may be reported."""
        self.report()
        self.schedule("forward")
        run()
        rows = self.memory_table()
        assert (found := self.report()) == "", found
        return rows

    def memory_reset(self) -> None:
        self.lib.cuda_on_cpu_memory_reset()

    # ---- memory ----

    def array(self, a: np.ndarray, name: str = "") -> c.c_void_p:
        """A copy of `a`, until free_all; reports call it `name`."""
        pointer = self.allocate(a.nbytes, name)
        self.lib.cudaMemcpy(
            pointer, np.ascontiguousarray(a).ctypes.data_as(c.c_void_p), c.c_size_t(a.nbytes), 1
        )
        self.arrays[pointer.value] = a
        return pointer

    def read(self, pointer: c.c_void_p) -> np.ndarray:
        """What stands now in an array."""
        a = np.empty_like(self.arrays[pointer.value], order="C")
        self.lib.cudaMemcpy(a.ctypes.data_as(c.c_void_p), pointer, c.c_size_t(a.nbytes), 2)
        return a

    def upload(self, tensor: torch.Tensor, name: str = "") -> int:
        """The address of a copy of a tensor, which lies as the tensor does, until free_all."""
        storage = tensor.untyped_storage()
        stored = (c.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
        pointer = self.array(np.frombuffer(stored, np.uint8), name)
        return pointer.value + tensor.storage_offset() * tensor.itemsize

    def download(self, address: int, tensor: torch.Tensor) -> None:
        """Into a contiguous tensor, what stands at an address."""
        size = c.c_size_t(tensor.nbytes)
        self.lib.cudaMemcpy(c.c_void_p(tensor.data_ptr()), c.c_void_p(address), size, 2)

    def free_all(self) -> None:
        while self.arrays:
            self.free(c.c_void_p(self.arrays.popitem()[0]))

    def allocate(self, size: int, name: str = "") -> c.c_void_p:
        pointer = c.c_void_p()
        assert self.lib.cudaMalloc(c.byref(pointer), c.c_size_t(size)) == 0
        if name:
            self.lib.cuda_on_cpu_name(pointer, name.encode())
        return pointer

    def put(self, a: np.ndarray, dtype: str, *, axes: tuple[int, ...], order: tuple[int, ...] = ()) -> Tensor:
        """A copy of `a`, stored in the order of axes `order`; `axes` names a's axes as 0 batch, 1 channel,
        2 position."""
        order = order or tuple(range(a.ndim))
        stored = np.ascontiguousarray(a.transpose(order))
        stored = to_bfloat16(stored) if dtype == "bfloat16" else stored.astype(dtype)
        pointer = self.allocate(stored.nbytes)
        self.lib.cudaMemcpy(pointer, stored.ctypes.data_as(c.c_void_p), c.c_size_t(stored.nbytes), 1)
        return self._tensor(dtype, a.shape, axes, order, pointer)

    def empty(
        self, shape: tuple[int, ...], dtype: str, *, axes: tuple[int, ...], order: tuple[int, ...] = ()
    ) -> Tensor:
        size = {"float64": 8, "float32": 4}.get(dtype, 2)
        order = order or tuple(range(len(shape)))
        return self._tensor(dtype, shape, axes, order, self.allocate(int(np.prod(shape)) * size))

    @staticmethod
    def _tensor(dtype: str, shape: tuple, axes: tuple, order: tuple, pointer: c.c_void_p) -> Tensor:
        strides, stride = [0, 0, 0], 1
        for axis in reversed(order):
            strides[axes[axis]] = stride
            stride *= shape[axis]
        return Tensor(dtype, shape, tuple(strides), pointer, tuple(shape[i] for i in order), order)

    def get(self, t: Tensor) -> np.ndarray:
        a = np.empty(t.stored, np.uint16 if t.dtype == "bfloat16" else t.dtype)
        self.lib.cudaMemcpy(a.ctypes.data_as(c.c_void_p), t.pointer, c.c_size_t(a.nbytes), 2)
        a = from_bfloat16(a) if t.dtype == "bfloat16" else a
        return a.transpose(np.argsort(t.axes))

    def free(self, *pointers: c.c_void_p) -> None:
        for pointer in pointers:
            self.lib.cudaFree(pointer)

    # ---- the launchers ----

    def launch(self, name: str, *arguments: c.Structure) -> int:
        """A launcher, with the workspace that `name`_workspace asks for; returns the CUDA error."""
        pointers = [c.byref(argument) for argument in arguments]
        ask = getattr(self.lib, f"{name}_workspace")
        ask.restype = c.c_int64
        workspace = self.allocate(ask(*pointers))
        error: int = getattr(self.lib, name)(*pointers, workspace)
        self.free(workspace)
        return error
