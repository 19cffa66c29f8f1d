"""Functions of one thread: arithmetic, conversions, bits, packed halves, loads and stores with hints, each
against its plain model; and that no function of the emulator is left without a test."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from . import build
from .device import Device

UNIT = build.HERE / "units" / "intrinsics.cu"


@pytest.fixture(scope="module", params=["fast", "race"])
def emulated(request: pytest.FixtureRequest) -> Device:
    try:
        return Device(build.library(request.param, (UNIT,)), request.param)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


def run(device: Device, name: str, *inputs: np.ndarray, rows: int, result: type) -> np.ndarray:
    """(rows, n), a row for each function."""
    n = len(inputs[0])
    out = device.array(np.zeros((rows, n), result))
    assert getattr(device.lib, f"run_{name}")(*map(device.array, inputs), out, n) == 0
    read = device.read(out)
    assert device.report() == ""
    device.free_all()
    return read


def normal(seed: int, dtype: str = "float64") -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(200) * 3).astype(dtype)


Function = Callable[[np.ndarray, np.ndarray], np.ndarray]
erf = np.vectorize(math.erf)

FLOATS: dict[str, Function] = {
    "rsqrtf": lambda a, b: 1 / np.sqrt(abs(a)),
    "__frsqrt_rn": lambda a, b: 1 / np.sqrt(abs(a)),
    "__fsqrt_rn": lambda a, b: np.sqrt(abs(a)),
    "__frcp_rn": lambda a, b: 1 / a,
    "__expf": lambda a, b: np.exp(a),
    "__exp10f": lambda a, b: 10**a,
    "__logf": lambda a, b: np.log(abs(a)),
    "__log2f": lambda a, b: np.log2(abs(a)),
    "__log10f": lambda a, b: np.log10(abs(a)),
    "__powf": lambda a, b: abs(a) ** b,
    "__tanhf": lambda a, b: np.tanh(a),
    "__sinf": lambda a, b: np.sin(a),
    "__cosf": lambda a, b: np.cos(a),
    "__sincosf, sine": lambda a, b: np.sin(a),
    "__sincosf, cosine": lambda a, b: np.cos(a),
    "sincospif, sine": lambda a, b: np.sin(np.pi * a),
    "sincospif, cosine": lambda a, b: np.cos(np.pi * a),
    "sinpif": lambda a, b: np.sin(np.pi * a),
    "cospif": lambda a, b: np.cos(np.pi * a),
    "__saturatef": lambda a, b: np.clip(a, 0, 1),
    "__fdividef": lambda a, b: a / b,
    "__fadd_rn": lambda a, b: a + b,
    "__fsub_rn": lambda a, b: a - b,
    "__fmul_rn": lambda a, b: a * b,
    "__fdiv_rn": lambda a, b: a / b,
    "__fmaf_rn": lambda a, b: a * b + np.float32(0.1),
    "fmaf": lambda a, b: a * b + np.float32(0.1),
    "fminf": np.minimum,
    "fmaxf": np.maximum,
    "min": np.minimum,
    "max": np.maximum,
    "tanhf": lambda a, b: np.tanh(a),
    "erff": lambda a, b: erf(a),
    "expf": lambda a, b: np.exp(a),
}


def test_floats(emulated: Device) -> None:
    x, y = normal(0, "float32"), normal(1, "float32")
    x[:4] = 0.5, -2, 1e6 + 0.5, 1
    got = run(emulated, "floats", x, y, rows=len(FLOATS), result=np.float32)
    with np.errstate(over="ignore"):
        for (name, function), row in zip(FLOATS.items(), got, strict=True):
            exact = function(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
            if name.endswith("_rn") or name in ("fmaf", "min", "max", "__saturatef"):  # rounded once
                np.testing.assert_array_equal(row, exact, err_msg=name)
            np.testing.assert_allclose(row, exact, rtol=1e-6, atol=2e-7, err_msg=name)


def test_a_saturated_nan_is_zero_and_half_turns_are_exact(emulated: Device) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0, 1, 2, 2.5, 1e7], np.float32)
    got = dict(zip(FLOATS, run(emulated, "floats", x, x, rows=len(FLOATS), result=np.float32), strict=True))
    np.testing.assert_array_equal(got["__saturatef"][:3], [0, 1, 0])
    np.testing.assert_allclose(got["sinpif"][3:], [0, 0, 0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(got["cospif"][3:], [1, -1, 1, 0, 1], atol=1e-15)


DOUBLES: dict[str, Function] = {
    "rsqrt": lambda a, b: 1 / np.sqrt(abs(a)),
    "sincospi, sine": lambda a, b: np.sin(np.pi * a),
    "sincospi, cosine": lambda a, b: np.cos(np.pi * a),
    "sinpi": lambda a, b: np.sin(np.pi * a),
    "cospi": lambda a, b: np.cos(np.pi * a),
    "__dadd_rn": lambda a, b: a + b,
    "__dsub_rn": lambda a, b: a - b,
    "__dmul_rn": lambda a, b: a * b,
    "__ddiv_rn": lambda a, b: a / b,
    "__dsqrt_rn": lambda a, b: np.sqrt(abs(a)),
    "__fma_rn": lambda a, b: (a.astype(np.longdouble) * b + 0.1).astype(np.float64),
    "min": np.minimum,
    "max": np.maximum,
    "__double2float_rn": lambda a, b: a.astype(np.float32).astype(np.float64),
    "__double_as_longlong and back": lambda a, b: a,
}


def test_doubles(emulated: Device) -> None:
    x, y = normal(2), normal(3)
    got = run(emulated, "doubles", x, y, rows=len(DOUBLES), result=np.float64)
    for (name, function), row in zip(DOUBLES.items(), got, strict=True):
        np.testing.assert_allclose(row, function(x, y), rtol=1e-14, atol=1e-14, err_msg=name)


def saturated(values: np.ndarray, dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    inside = np.clip(np.nan_to_num(values.astype(np.float64), nan=0.0), limits.min, limits.max)
    return inside.astype(dtype).view(np.int32)


TO_INTEGERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "__float2int_rn": lambda a: saturated(np.rint(a), np.int32),
    "__float2int_rz": lambda a: saturated(np.trunc(a), np.int32),
    "__float2int_rd": lambda a: saturated(np.floor(a), np.int32),
    "__float2int_ru": lambda a: saturated(np.ceil(a), np.int32),
    "__float2uint_rn": lambda a: saturated(np.rint(a), np.uint32),
    "__float2uint_rz": lambda a: saturated(np.trunc(a), np.uint32),
    "__double2int_rn": lambda a: saturated(np.rint(a), np.int32),
    "__double2int_rz": lambda a: saturated(np.trunc(a), np.int32),
    "__float_as_int": lambda a: a.view(np.int32),
    "__float_as_uint": lambda a: a.view(np.int32),
}


def test_to_integers(emulated: Device) -> None:
    edges = [0.5, 1.5, -0.5, -1.5, 2.5, 2**31, -(2**31), 2**32, 3e9, -1, 1e20, np.inf, -np.inf, np.nan, -0.0]
    x = np.concatenate([np.array(edges, np.float32), normal(4, "float32")])
    got = run(emulated, "to_integers", x, rows=len(TO_INTEGERS), result=np.int32)
    for (name, function), row in zip(TO_INTEGERS.items(), got, strict=True):
        np.testing.assert_array_equal(row, function(x), err_msg=name)


def test_from_integers(emulated: Device) -> None:
    edges = np.array([0, 1, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1, 0x3F800000], np.uint32)
    x = np.concatenate([edges, np.random.default_rng(5).integers(0, 2**31 - 2**24, 60).astype(np.uint32)])
    got = run(emulated, "from_integers", x, rows=5, result=np.float64)
    with np.errstate(invalid="ignore"):
        wanted = [
            *(x.view(np.int32).astype(np.float32), x.astype(np.float32), x.view(np.int32)),
            *(x.view(np.float32), x.view(np.float32)),
        ]
        for row, exact in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(row, exact.astype(np.float64))


def reversed_bits(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)


def permuted(a: int, b: int, selector: int) -> int:
    """Byte i is the byte of b:a that the selector's i-th digit names, with its top bit that byte's sign."""
    source = (b << 32 | a).to_bytes(8, "little")
    digits = [selector >> 4 * i & 15 for i in range(4)]
    chosen = [source[d & 7] if d < 8 else (255 if source[d & 7] & 128 else 0) for d in digits]
    return int.from_bytes(bytes(chosen), "little")


BITS: dict[str, Callable[[int, int], int]] = {
    "__popc": lambda a, b: a.bit_count(),
    "__popcll": lambda a, b: (a << 32 | b).bit_count(),
    "__clz": lambda a, b: 32 - a.bit_length(),
    "__clzll": lambda a, b: 64 - (a << 32 | b).bit_length(),
    "__ffs": lambda a, b: (a & -a).bit_length(),
    "__ffsll": lambda a, b: ((a << 32 | b) & -(a << 32 | b)).bit_length(),
    "__brev": lambda a, b: reversed_bits(a, 32),
    "__brevll": lambda a, b: reversed_bits(a << 32 | b, 64),
    "__mulhi": lambda a, b: (a - (a >> 31 << 32)) * (b - (b >> 31 << 32)) >> 32 & 0xFFFFFFFF,
    "__umulhi": lambda a, b: a * b >> 32,
    "__funnelshift_l": lambda a, b: ((b << 32 | a) << (b & 31)) >> 32 & 0xFFFFFFFF,
    "__funnelshift_r": lambda a, b: (b << 32 | a) >> (b & 31) & 0xFFFFFFFF,
    "__byte_perm": lambda a, b: permuted(a, b, b & 0xFFFF),
    "min": min,
    "max": max,
}


def test_bits(emulated: Device) -> None:
    r = np.random.default_rng(6)
    x, y = (r.integers(0, 1 << 32, 150).astype(np.uint32) >> r.integers(0, 32, 150).astype(np.uint32)
            for _ in range(2))  # fmt: skip
    x[:4], y[:4] = [0, 0xFFFFFFFF, 1, 0x80000000], [0, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]
    got = run(emulated, "bits", x, y, rows=len(BITS), result=np.uint64)
    for (name, function), row in zip(BITS.items(), got, strict=True):
        wanted = [function(int(a), int(b)) for a, b in zip(x, y, strict=True)]
        np.testing.assert_array_equal(row, np.array(wanted, np.uint64), err_msg=name)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_packed_halves(emulated: Device, half: torch.dtype) -> None:
    x, y = (normal(seed, "float32").reshape(100, 2) for seed in (7, 8))
    x[:3] = [[3.0, 65504], [1 + 2**-9, 1 + 2**-11], [1e-7, -0.0]]  # ties, and float16's ends
    got = run(emulated, f"packed_{str(half).removeprefix('torch.')}", x, y, rows=21, result=np.uint32)

    p, q = (torch.from_numpy(values).to(half) for values in (x, y))

    def words(low: torch.Tensor, high: torch.Tensor) -> np.ndarray:
        pair = torch.stack([low, high], 1).contiguous().view(torch.int16).numpy()
        return np.ascontiguousarray(pair).view(np.uint32)[:, 0]

    def floats(values: torch.Tensor) -> np.ndarray:
        return values.float().contiguous().numpy().view(np.uint32)

    def fused(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        exact = a.double() * b.double() + c.double()
        if half == torch.bfloat16:
            return exact.to(half)
        with np.errstate(over="ignore"):
            return torch.from_numpy(exact.numpy().astype(np.float16))  # rounded once, by torch twice

    (p0, p1), (q0, q1) = p.T, q.T
    as_bits = np.ascontiguousarray(p0.contiguous().view(torch.int16).numpy()).view(np.uint16)
    wanted = [
        words(p0, p1), words(q0, q1), words(p0, p0), words(q0, p1), words(q1, p0), words(p1, p1),
        words(p0, q0), words(p1, q1), words(p0 + q0, p1 + q1), words(p0 * q0, p1 * q1),
        words(fused(p0, q0, p0), fused(p1, q1, p1)), words(torch.maximum(p0, q0), torch.maximum(p1, q1)),
        floats(p0), floats(p1), floats(p0), floats(p1), floats(q0), floats(q1),
        floats(fused(p0, q0, q1)), as_bits.astype(np.uint32), floats(p1),
    ]  # fmt: skip
    for row, exact in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(row, exact)


def test_loads_and_stores_with_hints(emulated: Device) -> None:
    values = np.random.default_rng(9).standard_normal((64, 4)).astype(np.float32)
    given, out = emulated.array(values), emulated.array(np.zeros((8, 64, 4), np.float32))
    assert emulated.lib.run_hints(given, out) == 0
    np.testing.assert_array_equal(emulated.read(out), np.repeat(values[None], 8, 0))
    assert emulated.report() == ""
    emulated.free_all()


@pytest.mark.parametrize(("kib", "architecture", "asks", "runs"), [
    (48, 90, False, True), (49, 90, False, False), (49, 90, True, True), (227, 90, True, True),
    (228, 90, True, False), (163, 80, True, True), (164, 80, True, False), (100, 86, True, False),
])  # fmt: skip
def test_dynamic_shared_memory(kib: int, architecture: int, asks: bool, runs: bool) -> None:
    """More than 48 KiB only for a kernel that has asked, and what the architecture has only."""
    try:  # a library of its own: what a kernel was granted stays
        device = Device(build.library("plain", (UNIT,)), "plain")
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    device.lib.cuda_on_cpu_forget_attributes()
    device.architecture(architecture)
    out = device.array(np.zeros(128, np.float32))
    assert (device.lib.run_large(out, kib * 256, asks) == 0) == runs
    if runs:
        np.testing.assert_array_equal(device.read(out), kib * 64 - 1 - np.arange(128))
    device.free_all()
    device.architecture(90)
    device.report()


def test_clocks_and_fences(emulated: Device) -> None:
    out = emulated.array(np.zeros(32, np.int64))
    assert emulated.lib.run_clocks(out) == 0
    assert (emulated.read(out) > 0).all()
    emulated.free_all()


def test_every_function_has_a_test() -> None:
    """What the headers offer to kernels, units/ calls."""
    headers = "".join(path.read_text() for path in (build.HERE / "include").rglob("*") if path.is_file())
    units = "".join(path.read_text() for path in build.HERE.glob("units/*.cu"))
    units += (build.HERE / "test_emulator_reports.py").read_text()
    functions = re.findall(r"^(?:inline )?\w[\w:<> ]*?[ *](\w+)\(", headers, re.MULTILINE)
    functions += re.findall(r"^CUDA_ON_CPU_ATOMIC\((\w+),", headers, re.MULTILINE)
    offered = {name for name in functions if re.match(r"__|atomic|r?sqrt|sin|cos|min$|max$|clock", name)}
    offered.discard("__attribute__")
    assert len(offered) > 100
    missing = {name for name in offered if not re.search(rf"\b{name}(_block|_system)?\b", units)}
    assert not missing
