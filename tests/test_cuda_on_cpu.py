"""The CUDA kernels of fft_conv, run on the CPU by tests/cuda_on_cpu, against the reference."""

from __future__ import annotations

import ctypes as c
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import build
from cuda_on_cpu.device import Device
from cuda_on_cpu.fft_conv_cases import MODES, SMALL, THREE_LAUNCHES, Array, Case, FftConv, Forward, array

SCHEDULES = ("reverse", "random:1", "random:2", "warp:3")


def _device(name: str) -> Device:
    try:
        return Device(build.library(name), name)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def fast() -> Device:
    return _device("fast")


@pytest.fixture(scope="module")
def race() -> Device:
    return _device("race")


def check(case: Case, results: dict[str, np.ndarray]) -> None:
    assert case.wrong(results, case.expected()) == []


LENGTHS = (1, 2, 3, 4, 7, 31, 128, 257, 1000, 1024, 4096)
LONG = (8192, 16384, 20000, 40000)

CASES = [
    *(Case(n, mode=mode, shared=shared) for n in LENGTHS for mode in MODES for shared in (True, False)),
    *(Case(n, layout="bld", shared=shared) for n in LENGTHS for shared in (True, False)),
    # every stored type, and a float32 filter beside a half type
    *(Case(n, stored=t, channels=20, layout=layout)
      for n in (37, 300) for t in ("float64", "bfloat16", "float16")
      for layout in ("bdl", "bld")),
    *(Case(100, stored=t, stored_filter="float32", mode="bidirectional", shared=False)
      for t in ("bfloat16", "float16")),
    # what may be absent, and what may not be wanted
    *(Case(50, gates=g, skip=s, shared=not s) for g in ("", "pre", "post") for s in (True, False)),
    *(Case(50, wanted=(g,), shared=s) for g in ("grad_x", "grad_filter", "grad_pre_gate", "grad_post_gate",
                                               "grad_skip") for s in (True, False)),
    # few taps, one tap, the two sides of a filter uneven
    *(Case(300, taps=t, mode=m, shared=t % 2 == 0) for t in (1, 2, 5, 300) for m in MODES),
    # more rows than a block has, a batch summed in several parts, one row alone
    Case(33, batch=7, channels=130), Case(33, batch=7, channels=130, layout="bld", shared=False),
    Case(600, batch=9, channels=2), Case(1, batch=1, channels=1), Case(5, batch=300, channels=1),
]  # fmt: skip

LONG_CASES = [
    *(Case(n, batch=2, channels=2, mode=mode, shared=n % 3 != 0) for n in LONG for mode in MODES),
    *(Case(n, batch=2, channels=2, shared=False) for n in LONG),
    Case(20000, layout="bld", channels=2, stored="bfloat16", stored_filter="float32", mode="circular"),
    *(Case(n, batch=2, channels=1, stored="float64", mode="bidirectional") for n in (8192, 16384)),
    *(Case(20000, channels=2, wanted=(g,)) for g in ("grad_x", "grad_filter", "grad_post_gate", "grad_skip")),
]


@pytest.mark.parametrize("case", CASES + LONG_CASES, ids=str)
def test_it_equals_the_reference(fast: Device, case: Case) -> None:
    fast.schedule("forward")
    results = case.run(fast)
    assert fast.report() == ""
    check(case, results)


@pytest.mark.parametrize("case", [*SMALL, Case(16400, channels=1)], ids=str)
def test_the_order_of_threads_does_not_matter(fast: Device, case: Case) -> None:
    fast.schedule("forward")
    first = case.run(fast)
    for schedule in SCHEDULES:
        fast.schedule(schedule)
        for name, result in case.run(fast).items():
            np.testing.assert_array_equal(result, first[name], err_msg=f"{name}, {schedule}")
    assert fast.report() == ""


@pytest.mark.parametrize("case", [*SMALL, THREE_LAUNCHES], ids=str)
def test_it_has_no_race(race: Device, case: Case) -> None:
    race.report()
    race.schedule("random:1")
    results = case.run(race)
    assert race.report() == ""
    check(case, results)


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    cases = [*SMALL, THREE_LAUNCHES]
    try:
        path = build.library("asan")
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    code = (
        "import sys; from pathlib import Path; from cuda_on_cpu.fft_conv_cases import *;"
        f"save(Path({str(tmp_path / 'results.npz')!r}), Device({str(path)!r}), {cases!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, env=build.asan_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = np.load(tmp_path / "results.npz")
    for i, case in enumerate(cases):
        check(case, {key.partition("/")[2]: saved[key] for key in saved if key.startswith(f"{i}/")})


@pytest.mark.parametrize("sm", [80, 86])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("length", "stored"), [(8000, "float32"), (16000, "float32"), (8000, "float64")])
def test_less_shared_memory_gives_the_same(
    fast: Device, sm: int, shared: bool, length: int, stored: str
) -> None:
    case = Case(length, channels=1, shared=shared, stored=stored)
    fast.schedule("forward")
    fast.architecture(sm)
    try:
        check(case, case.run(fast))
    finally:
        fast.architecture(90)
    assert fast.report() == ""


@pytest.mark.parametrize("sm", [86, 90])
def test_the_longest_row(fast: Device, sm: int) -> None:
    case = Case(1 << 22, batch=1, channels=1, taps=5, gates="", mode="bidirectional", wanted=("grad_x",))
    fast.schedule("forward")
    fast.architecture(sm)
    try:
        check(case, case.run(fast))
    finally:
        fast.architecture(90)


@pytest.mark.parametrize("shared", [True, False])
def test_more_rows_than_the_workspace_holds_at_a_time(fast: Device, shared: bool) -> None:
    batch, channels = (20, 1) if shared else (2, 10)
    case = Case(200_000, batch, channels, shared=shared, taps=100, gates="", skip=False)
    fast.schedule("forward")
    check(case, case.run(fast))


def test_nothing_wanted_is_nothing_done(fast: Device) -> None:
    for length in (10, 20000):
        results = Case(length, batch=1, channels=1, wanted=()).run(fast)
        assert set(results) == {"y"}


@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize(("length", "stored"), [(32, "float32"), (64, "float64"), (500, "float32"),
                                                (1024, "float32"), (2048, "float64")])  # fmt: skip
def test_shared_memory_has_few_bank_conflicts(race: Device, length: int, stored: str, layout: str) -> None:
    race.report()
    race.schedule("forward")
    Case(length, batch=1, channels=16 if length < 1000 else 4, stored=stored, layout=layout).run(race)
    shared = [line for line in race.memory_table() if line.memory == "shared"]
    assert race.report() == ""
    assert sum(line.units for line in shared) <= 1.15 * sum(line.ideal for line in shared)


@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(fast: Device, layout: str, bad: float) -> None:
    case = Case(40, batch=2, channels=5, layout=layout)
    arguments = case.arguments()
    clean = case.run(fast, arguments)
    arguments["x"][1, 2, 7] = bad
    dirty = case.run(fast, arguments)
    for name in ("y", "grad_x", "grad_pre_gate", "grad_post_gate"):
        others = np.ones((2, 5), bool)
        others[1, 2] = False
        np.testing.assert_array_equal(dirty[name][others], clean[name][others], err_msg=name)
    assert not np.isfinite(dirty["y"][1, 2]).all()


def test_offsets_beyond_32_bits(fast: Device) -> None:
    length, far = 20, (1 << 31) + 40
    memory = mmap.mmap(-1, 2 * (far + length), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    x = np.frombuffer(memory, np.float16)
    values = np.random.default_rng(0).standard_normal((2, length)).astype(np.float16)
    x[:length], x[far:] = values
    filter = fast.put(np.array([[1.0, 0.5]]), "float16", axes=(1, 2))
    y = fast.empty((2, 1, length), "float16", axes=(0, 1, 2))
    given = Array(x.ctypes.data, 3, far, far, 1)
    size = FftConv(2, 1, length, 2, MODES["causal"], True)
    assert fast.launch("fft_conv_forward", size, Forward(x=given, filter=array(filter), y=array(y))) == 0
    wanted = values.astype(np.float64)
    wanted[:, 1:] += 0.5 * values[:, :-1]
    np.testing.assert_allclose(fast.get(y)[:, 0], wanted, rtol=1e-3, atol=1e-3)
    fast.free(filter.pointer, y.pointer)


def test_an_empty_batch_sums_to_zero(fast: Device) -> None:
    case = Case(10, batch=0)
    results = case.run(fast)
    assert not results["grad_filter"].any()
    assert not results["grad_skip"].any()


def test_too_long_a_row_is_refused(fast: Device) -> None:
    size = FftConv(1, 1, (1 << 22) + 1, 1, 0, True)
    arguments = Forward(*(Array(c.c_void_p(1), 0, 0, 0, 1) for _ in ("x", "filter")))
    assert fast.launch("fft_conv_forward", size, arguments) != 0
