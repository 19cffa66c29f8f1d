"""Calls of pair_message: their arguments, what the CUDA kernels make of them, and what is expected."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass

import numpy as np

from .device import DTYPES, Device, from_bfloat16, to_bfloat16
from .fft_conv_cases import TOLERANCE, rounded


class Antipodes(c.Structure):
    """equiconv::Antipodes of csrc/pair_message.h, as those below."""

    _fields_ = [("rows", c.c_int64), ("of", c.c_void_p)]


A_ROW_FOR_EACH_PAIR = Antipodes(2**63 - 1, None)


class PairMessage(c.Structure):
    _fields_ = [
        *((name, c.c_int64) for name in ("pairs", "senders", "receivers")),
        *((name, c.c_int64) for name in ("orientations", "functions", "channels")),
        ("shared", c.c_bool),
        ("tf32", c.c_bool),
        ("antipodes", Antipodes),
    ]


class Rows(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("dtype", c.c_int8),
        *((name, c.c_int64) for name in ("row", "orientation", "entry")),
    ]


class PairGroups(c.Structure):
    _fields_ = [
        *((name, c.c_void_p) for name in ("offsets", "neighbours", "rows")),
        ("wide", c.c_bool),
    ]


class PairAggregate(c.Structure):
    _fields_ = [
        ("groups", c.c_int64),
        ("pairs", PairGroups),
        *((name, Rows) for name in ("x", "basis", "weight", "out")),
    ]


class PairGradients(c.Structure):
    _fields_ = [
        ("pairs", PairGroups),
        *((name, Rows) for name in ("grad_out", "x", "basis", "weight", "grad_basis", "grad_weight")),
    ]


def launch(device: Device, name: str, size: PairMessage, arguments: c.Structure) -> None:
    """A launcher, with the workspace it asks for."""
    ask = getattr(device.lib, f"{name}_workspace")
    ask.restype = c.c_int64
    workspace = device.allocate(ask(c.byref(size), c.byref(arguments)), "workspace")
    error = getattr(device.lib, name)(c.byref(size), c.byref(arguments), workspace)
    device.free(workspace)
    assert error == 0, device.report()


@dataclass(frozen=True)
class PairCase:
    senders: int
    receivers: int
    pairs: int
    orientations: int
    functions: int
    channels: int
    stored: str = "float32"
    stored_weight: str = ""  # "": like the others
    shared: bool = False  # the basis has one row for all orientations
    strided: bool = False  # entries are the slowest axis, not the fastest
    tf32: bool = False
    wide: bool = False  # indices of 64 bits
    empty: float = 0.0  # this part of the receivers has no pair
    antipodal: bool = False  # a third of the pairs are reversals of others, which have their basis rows
    wanted: tuple[str, ...] = ("grad_x", "grad_basis", "grad_weight")

    def __str__(self) -> str:
        parts = [f"{self.senders}to{self.receivers}", self.pairs, f"O{self.orientations}"]
        parts += [f"K{self.functions}", f"C{self.channels}", self.stored]
        parts += [self.stored_weight] if self.stored_weight else []
        kinds = ("shared", "strided", "tf32", "wide", "antipodal")
        parts += [name for name in kinds if getattr(self, name)]
        parts += [f"{self.empty:g}empty"] if self.empty else []
        return "-".join(map(str, parts))

    def dtype_of(self, name: str) -> str:
        return self.stored_weight if name.endswith("weight") and self.stored_weight else self.stored

    def shape_of(self, name: str) -> tuple[int, ...]:
        name = "out" if name == "grad_out" else name.removeprefix("grad_")
        return {
            "x": (self.senders, self.orientations, self.channels),
            "out": (self.receivers, self.orientations, self.channels),
            "basis": (self.num_rows, 1 if self.shared else self.orientations, self.functions),
            "weight": (self.functions, 1, self.channels),
        }[name]

    @property
    def reversals(self) -> int:
        return self.pairs // 3 if self.antipodal else 0

    @property
    def num_rows(self) -> int:
        return self.pairs - self.reversals

    def graph(self) -> tuple[np.ndarray, np.ndarray]:
        """Senders and receivers, in no order; of an undirected graph self-loops, then the reversals."""
        rng = np.random.default_rng(7)
        most = max(1, int(self.receivers * (1 - self.empty)))
        senders, receivers = rng.integers(self.senders, size=self.pairs), rng.integers(most, size=self.pairs)
        if self.antipodal:
            receivers[self.reversals : self.num_rows] = senders[self.reversals : self.num_rows]
            senders[self.num_rows :] = receivers[: self.reversals]
            receivers[self.num_rows :] = senders[: self.reversals]
        return senders, receivers

    def opposite(self) -> np.ndarray:
        return np.arange(self.orientations)[::-1]

    def arguments(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(3)
        return {
            name: rounded(rng.standard_normal(self.shape_of(name)), self.dtype_of(name))
            for name in ("x", "basis", "weight", "grad_out")
        }

    def expected(self) -> dict[str, np.ndarray]:
        a = self.arguments()
        senders, receivers = self.graph()
        x, basis, weight, grad = a["x"][senders], a["basis"], a["weight"][:, 0], a["grad_out"][receivers]
        if self.antipodal:
            back = basis[: self.reversals]
            basis = np.concatenate((basis, back if self.shared else back[:, self.opposite()]))
        filters = basis @ weight
        results = {name: np.zeros(self.shape_of(name)) for name in ("out", "grad_x")}
        np.add.at(results["out"], receivers, filters * x)
        np.add.at(results["grad_x"], senders, filters * grad)
        products = (x * grad).sum(1, keepdims=True) if self.shared else x * grad
        results["grad_basis"] = products @ weight.T
        if self.antipodal:
            back = results["grad_basis"][self.num_rows :]
            results["grad_basis"] = results["grad_basis"][: self.num_rows]
            results["grad_basis"][: self.reversals] += back if self.shared else back[:, self.opposite()]
        results["grad_weight"] = np.einsum("eok,eoc->kc", basis, products)[:, None]
        return {name: value for name, value in results.items() if name == "out" or name in self.wanted}

    # ---- on a device ----

    def order(self) -> tuple[int, int, int]:
        return (2, 1, 0) if self.strided else (0, 1, 2)

    def rows(self, name: str, pointer: c.c_void_p) -> Rows:
        strides, stride = [0, 0, 0], 1
        shape = self.shape_of(name)
        for axis in reversed(self.order()):
            strides[axis], stride = stride, stride * shape[axis]
        if name.endswith("weight") or (self.shared and name.endswith("basis")):
            strides[1] = 0
        return Rows(pointer, DTYPES[self.dtype_of(name)], *strides)

    def put(self, device: Device, name: str, value: np.ndarray) -> c.c_void_p:
        dtype, laid = self.dtype_of(name), np.ascontiguousarray(value.transpose(self.order()))
        return device.array(to_bfloat16(laid) if dtype == "bfloat16" else laid.astype(dtype), name)

    def get(self, device: Device, name: str, pointer: c.c_void_p) -> np.ndarray:
        read = device.read(pointer)
        return (from_bfloat16(read) if self.dtype_of(name) == "bfloat16" else read).transpose(self.order())

    def groups(self, device: Device, near: np.ndarray, far: np.ndarray, count: int) -> PairGroups:
        order = np.lexsort((far, near))
        offsets = np.searchsorted(near[order], np.arange(count + 1))
        kind = np.int64 if self.wide else np.int32
        arrays = {"offsets": offsets, "neighbours": far[order], "rows": order}
        return PairGroups(*(device.array(a.astype(kind), n) for n, a in arrays.items()), self.wide)

    def run(self, device: Device) -> dict[str, np.ndarray]:
        size = PairMessage(
            *(self.pairs, self.senders, self.receivers, self.orientations, self.functions, self.channels),
            *(self.shared, self.tf32, A_ROW_FOR_EACH_PAIR),
        )
        senders, receivers = self.graph()
        by_receiver = self.groups(device, receivers, senders, self.receivers)
        by_sender = self.groups(device, senders, receivers, self.senders)
        rows_by_receiver = by_receiver
        if self.antipodal:
            size.antipodes = Antipodes(self.num_rows, device.array(self.opposite().copy(), "antipode"))
            rows_by_receiver = self.groups(
                device, receivers[: self.num_rows], senders[: self.num_rows], self.receivers
            )
        given = {n: self.rows(n, self.put(device, n, value)) for n, value in self.arguments().items()}
        names = ("out", *self.wanted)
        places = {n: self.put(device, n, np.full(self.shape_of(n), np.nan)) for n in names}
        to = {n: self.rows(n, place) for n, place in places.items()}
        both = given["basis"], given["weight"]

        launch(
            device, "pair_message_aggregate", size,
            PairAggregate(self.receivers, by_receiver, given["x"], *both, to["out"]),
        )  # fmt: skip
        if "grad_x" in to:
            back = PairAggregate(self.senders, by_sender, given["grad_out"], *both, to["grad_x"])
            launch(device, "pair_message_aggregate", size, back)
        gradients = PairGradients(rows_by_receiver, given["grad_out"], given["x"], *both)
        for name in {"grad_basis", "grad_weight"} & set(to):
            setattr(gradients, name, to[name])
        launch(device, "pair_message_gradients", size, gradients)
        results = {name: self.get(device, name, place) for name, place in places.items()}
        device.free_all()
        return results

    def wrong(self, results: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
        """The results that are further from what is expected than rounding explains."""

        def is_right(name: str) -> bool:
            tolerance = 1e-3 if self.tf32 else TOLERANCE[self.dtype_of(name)]
            error = np.linalg.norm(results[name] - expected[name]) / np.linalg.norm(expected[name])
            return bool(error < tolerance)

        return [name for name in results if not is_right(name)]


# A few of every kind: between them every kernel, every line and every way in which rows lie.
PAIRS = [
    PairCase(5, 6, 40, 2, 20, 24, empty=0.5),
    PairCase(7, 5, 37, 2, 3, 5, "bfloat16"),
    PairCase(9, 4, 70, 2, 16, 72, "bfloat16", "float32"),
    PairCase(4, 9, 33, 9, 33, 8, "float16", shared=True, wide=True),
    PairCase(5, 4, 35, 1, 8, 16, "float16", "float32", strided=True),
    PairCase(6, 3, 40, 2, 10, 12, "float64", shared=True),
    PairCase(6, 3, 40, 2, 10, 12, tf32=True),
    PairCase(7, 7, 75, 3, 20, 24, antipodal=True),
    PairCase(6, 6, 90, 2, 9, 70, "bfloat16", antipodal=True),
    PairCase(5, 5, 60, 4, 10, 12, "float64", shared=True, antipodal=True),
    PairCase(5, 5, 30, 2, 10, 12, "bfloat16", "float32", antipodal=True),
    PairCase(5, 5, 30, 2, 10, 12, "float16", antipodal=True),
    PairCase(5, 5, 30, 2, 10, 12, "float16", "float32", antipodal=True),
    PairCase(5, 5, 30, 2, 10, 12, antipodal=True, tf32=True),
]
# Groups of several pieces, and a weight that comes in slabs.
PIECES = [
    PairCase(90, 3, 4200, 1, 4, 8, "bfloat16", wanted=("grad_x",)),
    PairCase(50, 9, 4120, 1, 2, 2, "float64", wanted=()),
]
SLABS = PairCase(3, 3, 20, 1, 1100, 8, wanted=("grad_x",))
