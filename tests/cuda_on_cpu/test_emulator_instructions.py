"""Tensor cores, asynchronous copies, conversions, atomics: against tables and plain models.

The tables are those of the PTX ISA ("Matrix Fragments for mma.m16n8k4, m16n8k8, m16n8k16", "ldmatrix"),
element by element as they stand there, where the emulator has one rule for words.
"""

from __future__ import annotations

import ctypes as c
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from . import build
from .device import Device, from_bfloat16, to_bfloat16

UNIT = build.HERE / "units" / "instructions.cu"


@pytest.fixture(scope="module", params=["fast", "race"])
def emulated(request: pytest.FixtureRequest) -> Device:
    try:
        return Device(build.library(request.param, (UNIT,)), request.param)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("unit", sorted(UNIT.parent.glob("*.cu")), ids=lambda path: path.stem)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_it_is_cuda(unit: Path, architecture: str, tmp_path: Path) -> None:
    """What the emulator runs, nvcc compiles, and ptxas knows the instructions of ptx.cuh."""
    if not (nvcc := shutil.which("nvcc")):
        pytest.skip("no nvcc")
    command = [nvcc, "-std=c++20", f"-arch={architecture}", "-cubin", "-o", tmp_path / "made", unit]
    done = subprocess.run([*command, f"-I{build.KERNELS}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- mma -------------------------------------------------------------------------------------------

# (row, column) of element i of lane 4 g + t: of a (16 x k), of b (k x 8), of c and d (16 x 8).
Table = Callable[[int, int, int], tuple[int, int]]
FRAGMENTS: dict[tuple[str, int], tuple[Table, Table]] = {
    ("half", 16): (
        lambda i, g, t: (g if i in (0, 1, 4, 5) else g + 8, 2 * t + i % 2 + (0 if i < 4 else 8)),
        lambda i, g, t: (2 * t + i % 2 + (0 if i < 2 else 8), g),
    ),
    ("half", 8): (
        lambda i, g, t: (g if i < 2 else g + 8, 2 * t + i % 2),
        lambda i, g, t: (2 * t + i, g),
    ),
    ("tf32", 8): (
        lambda i, g, t: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
        lambda i, g, t: (t if i == 0 else t + 4, g),
    ),
    ("tf32", 4): (
        lambda i, g, t: (g if i == 0 else g + 8, t),
        lambda i, g, t: (t, g),
    ),
}


def accumulator(i: int, g: int, t: int) -> tuple[int, int]:
    return (g if i < 2 else g + 8, 2 * t + i % 2)


def fragments(matrix: np.ndarray, table: Table, each: int) -> np.ndarray:
    """(32, each): what every lane holds of a matrix."""
    return np.array([[matrix[table(i, lane // 4, lane % 4)] for i in range(each)] for lane in range(32)])


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bf16":
        return to_bfloat16(values)
    return values.astype(np.float16).view(np.uint16) if dtype == "f16" else values.astype(np.float32)


def read_back(bits: np.ndarray, dtype: str) -> np.ndarray:
    """What the product takes an operand for: of a tf32 not the 13 lowest bits."""
    if dtype == "bf16":
        return from_bfloat16(bits).astype(np.float64)
    if dtype == "f16":
        return bits.view(np.float16).astype(np.float64)
    return (bits.view(np.uint32) & 0xFFFFE000).view(np.float32).astype(np.float64)


PRODUCTS = [("bf16", 16), ("f16", 16), ("tf32", 8), ("bf16", 8), ("f16", 8), ("tf32", 4)]


@pytest.mark.parametrize(("element", "depth"), PRODUCTS)
def test_mma(emulated: Device, element: str, depth: int) -> None:
    r = np.random.default_rng(depth)
    a, b = (stored(r.standard_normal(shape), element) for shape in [(16, depth), (depth, 8)])
    c = r.standard_normal((16, 8)).astype(np.float32)
    of_a, of_b = FRAGMENTS["tf32" if element == "tf32" else "half", depth]
    held_a = np.ascontiguousarray(fragments(a, of_a, 16 * depth // 32)).view(np.uint32)
    held_b = np.ascontiguousarray(fragments(b, of_b, 8 * depth // 32)).view(np.uint32)
    registers = held_a.shape[1]
    assert held_b.shape[1] == registers // 2
    d = emulated.array(fragments(c, accumulator, 4))
    lib = emulated.lib
    assert (
        lib.run_products(element.encode(), registers, emulated.array(held_a), emulated.array(held_b), d) == 0
    )
    exact = read_back(a, element) @ read_back(b, element) + c
    np.testing.assert_array_equal(emulated.read(d), fragments(exact, accumulator, 4).astype(np.float32))
    assert emulated.report() == ""
    emulated.free_all()


def test_mma_sums_in_half(emulated: Device) -> None:
    r = np.random.default_rng(0)
    a, b, c = (r.standard_normal(shape).astype(np.float16) for shape in [(16, 16), (16, 8), (16, 8)])
    of_a, of_b = FRAGMENTS["half", 16]
    given = [fragments(a, of_a, 8), fragments(b, of_b, 4), fragments(c, accumulator, 4)]
    a_, b_, d = (emulated.array(np.ascontiguousarray(x).view(np.uint32)) for x in given)
    assert emulated.lib.run_products_in_half(a_, b_, d) == 0
    exact = a.astype(np.float64) @ b.astype(np.float64) + c
    result = emulated.read(d).view(np.float16)
    np.testing.assert_array_equal(result, fragments(exact, accumulator, 4).astype(np.float16))
    emulated.free_all()


def test_mma_keeps_what_is_not_finite(emulated: Device) -> None:
    a, b = np.ones((16, 16)), np.ones((16, 8))
    a[3, 5], b[2, 6] = np.inf, np.nan
    of_a, of_b = FRAGMENTS["half", 16]
    given = [fragments(stored(a, "bf16"), of_a, 8), fragments(stored(b, "bf16"), of_b, 4)]
    held = [emulated.array(np.ascontiguousarray(x).view(np.uint32)) for x in given]
    d = emulated.array(np.zeros((32, 4), np.float32))
    assert emulated.lib.run_products(b"bf16", 4, *held, d) == 0
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(emulated.read(d), fragments(a @ b, accumulator, 4))
    emulated.free_all()


# ---- ldmatrix --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(emulated: Device, count: int, transposed: bool) -> None:
    """Lane l gets elements 2 (l % 4) and the next of row l / 4; transposed, of column l / 4."""
    stored_as = np.random.default_rng(count).permutation(1 << 16)[: 4 * 64].astype(np.uint16).reshape(4, 8, 8)
    out = emulated.array(np.zeros((32, count), np.uint32))
    assert emulated.lib.run_matrices(emulated.array(stored_as), out, count, transposed) == 0
    matrices = stored_as.transpose(0, 2, 1) if transposed else stored_as
    wanted = matrices[:count].reshape(count, 32, 2).transpose(1, 0, 2)
    np.testing.assert_array_equal(emulated.read(out).view(np.uint16).reshape(32, count, 2), wanted)
    assert emulated.report() == ""
    emulated.free_all()


# ---- cp.async --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("valid", [0, 7, 32])
def test_copies_are_there_after_their_wait(emulated: Device, size: int, valid: int) -> None:
    given = np.random.default_rng(size).integers(0, 1 << 32, (3, 32, size // 4)).astype(np.uint32)
    out = emulated.array(np.zeros((3, 32, size // 4), np.uint32))
    assert emulated.lib.run_copies(size, emulated.array(given), out, valid) == 0
    wanted = given.copy()
    wanted[2, valid:] = 0
    np.testing.assert_array_equal(emulated.read(out), wanted)
    assert emulated.report() == ""
    emulated.free_all()


def test_copies_by_the_pipeline_primitives(emulated: Device) -> None:
    given = np.random.default_rng(0).integers(0, 1 << 32, (32, 4)).astype(np.uint32)
    out = emulated.array(np.zeros((32, 4), np.uint32))
    assert emulated.lib.run_pipelined(emulated.array(given), out) == 0
    wanted = given[::-1].copy()
    wanted[:, 3] = 0
    np.testing.assert_array_equal(emulated.read(out), wanted)
    assert emulated.report() == ""
    emulated.free_all()


def test_copies_are_garbage_before(emulated: Device) -> None:
    given = np.arange(32, dtype=np.uint32)
    out = emulated.array(np.zeros(32, np.uint32))
    assert emulated.lib.run_impatient(emulated.array(given), out) == 0
    assert (emulated.read(out) == 0xFFFFFFFF).all()
    assert ("cp.async destination before its wait" in emulated.report()) == (emulated.build == "race")
    emulated.free_all()


# ---- conversions -----------------------------------------------------------------------------------


def convert(device: Device, which: int, values: np.ndarray, result: type) -> np.ndarray:
    out = device.array(np.zeros(len(values), result))
    assert device.lib.run_conversions(device.array(values), out, which, len(values)) == 0
    read = device.read(out)
    device.free_all()
    return read


def near(values: np.ndarray) -> np.ndarray:
    """Values, what lies half way between neighbours, and float32's own neighbours of all of these."""
    finite = np.unique(values[np.isfinite(values)].astype(np.float64))
    ties = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    both = np.concatenate([values, ties])
    with np.errstate(over="ignore", invalid="ignore"):
        around = [both, np.nextafter(both, np.float32(np.inf)), np.nextafter(both, np.float32(-np.inf))]
    return np.concatenate([*around, np.array([np.inf, -np.inf, np.nan, 3.4e38, 1e-45], np.float32)])


ALL_HALVES = np.arange(1 << 16).astype(np.uint16)


def test_float16_exhaustively() -> None:
    device = fast()
    wide = convert(device, 0, ALL_HALVES, np.float32)
    np.testing.assert_array_equal(wide, ALL_HALVES.view(np.float16).astype(np.float32))
    values = near(wide)
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16)
    np.testing.assert_array_equal(convert(device, 1, values, np.float16), wanted)


def test_bfloat16_exhaustively() -> None:
    device = fast()
    wide = convert(device, 2, ALL_HALVES, np.float32)
    bits = torch.from_numpy(ALL_HALVES.view(np.int16).copy())
    np.testing.assert_array_equal(wide, bits.view(torch.bfloat16).float().numpy())
    values = near(wide)
    wanted = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(from_bfloat16(convert(device, 3, values, np.uint16)), wanted)


def test_tf32() -> None:
    """To the nearest float32 with 10 bits of fraction, ties away from zero."""
    r = np.random.default_rng(0)
    values = (r.standard_normal(20000) * 10.0 ** r.integers(-30, 30, 20000)).astype(np.float32)
    coarse = (values.view(np.uint32) & 0xFFFFE000).view(np.float32)
    values = np.concatenate([values, near(coarse[:500])])
    values = values[np.abs(values) < 3.3e38]
    magnitude = np.abs(values.astype(np.float64))
    unit = 2.0 ** (np.maximum(np.floor(np.log2(np.where(magnitude > 0, magnitude, 1))), -126) - 10)
    wanted = np.copysign(np.floor(magnitude / unit + 0.5) * unit, values).astype(np.float32)
    result = convert(fast(), 4, values, np.uint32).view(np.float32)
    np.testing.assert_array_equal(result, wanted)
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(convert(fast(), 4, special, np.uint32).view(np.float32), special)


def fast() -> Device:
    try:
        return Device(build.library("fast", (UNIT,)))
    except build.Unavailable as missing:
        pytest.skip(str(missing))


# ---- atomics and the rest --------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["forward", "random:5"])
@pytest.mark.parametrize(("kind", "number"), list(enumerate(["int32", "uint32", "uint64"])))
def test_atomics_on_bits(emulated: Device, kind: int, number: str, schedule: str) -> None:
    r = np.random.default_rng(kind)
    values = r.integers(0, 1 << 30, 192).astype(number) * np.dtype(number).type(-1 if kind == 0 else 1)
    at = np.zeros(9, number)
    at[2], at[3] = np.iinfo(number).max, np.iinfo(number).min
    at[4] = np.array(-1).astype(number)
    place = emulated.array(at)
    emulated.schedule(schedule)
    assert emulated.lib.run_bits_atomics(place, emulated.array(values), kind) == 0
    got = emulated.read(place)
    total = np.add.reduce(values, dtype=number)
    wanted = [total, 0 if kind == 2 else np.negative([total])[0], values.min(), values.max()]
    wanted += [f.reduce(values) for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)] + [total]
    np.testing.assert_array_equal(got[:8], np.array(wanted, number))
    assert got[8] in values
    assert emulated.report() == ""
    emulated.free_all()


@pytest.mark.parametrize(
    ("kind", "number"), list(enumerate(["float32", "float64", "bfloat16", "float16", "half2"]))
)
def test_sums_by_atomics(emulated: Device, kind: int, number: str) -> None:
    n = 384 if number == "half2" else 192
    values = np.random.default_rng(kind).integers(-2, 3, n)  # whose sums every type holds
    given = to_bfloat16(values) if number == "bfloat16" else values.astype(number.replace("half2", "float16"))
    at = emulated.array(np.zeros_like(given[:2]))
    emulated.schedule("forward")
    assert emulated.lib.run_sums(at, emulated.array(given), kind) == 0
    got = emulated.read(at)
    got = from_bfloat16(got) if number == "bfloat16" else got
    wanted = [values[::2].sum(), values[1::2].sum()] if number == "half2" else [values.sum(), 0]
    np.testing.assert_array_equal(got, wanted)
    assert emulated.report() == ""
    emulated.free_all()


def test_counters_wrap(emulated: Device) -> None:
    at = emulated.array(np.zeros(2, np.uint32))
    assert emulated.lib.run_counters(at) == 0
    np.testing.assert_array_equal(emulated.read(at), [64 % 11, (-64) % 11])
    emulated.free_all()


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random:3", "warp:4"])
def test_who_waits_for_a_lock_gets_it(emulated: Device, schedule: str) -> None:
    lock, total = emulated.array(np.zeros(1, np.int32)), emulated.array(np.zeros(1, np.int32))
    emulated.schedule(schedule)
    assert emulated.lib.run_locked(lock, total) == 0
    assert emulated.read(total)[0] == 64
    assert emulated.report() == ""
    emulated.free_all()


def test_constant_memory(emulated: Device) -> None:
    values = np.arange(4, dtype=np.float32)
    out = emulated.array(np.zeros(4, np.float32))
    assert emulated.lib.run_constants(values.ctypes.data_as(c.c_void_p), out) == 0
    np.testing.assert_array_equal(emulated.read(out), values)
    emulated.free_all()
