"""The emulator itself: every planted mistake is found, and sound kernels are left alone."""

from __future__ import annotations

import ctypes as c
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from . import build
from .device import Device

PLANTED = Path(__file__).parent / "planted" / "planted.cu"
NONE, NO_BARRIER, SHARED_BOUNDS, GLOBAL_BOUNDS, DIVERGENT, UNWRITTEN, EARLY_RETURN = range(7)
SCHEDULES = ["forward", "reverse", "random:1", "warp:2"]


@pytest.fixture(scope="module", params=["fast", "race"])
def emulated(request: pytest.FixtureRequest) -> Device:
    try:
        return Device(build.library(request.param, (PLANTED,)), request.param)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


def reverse(emulated: Device, mistake: int, schedule: str = "forward") -> tuple[int, np.ndarray, str]:
    x = np.arange(64, dtype=np.float32)
    tensor = emulated.put(x, "float32", axes=(2,))
    y = emulated.empty((64,), "float32", axes=(2,))
    emulated.schedule(schedule)
    error = emulated.lib.run_reverse(tensor.pointer, y.pointer, mistake)
    out = emulated.get(y)
    emulated.free(tensor.pointer, y.pointer)
    return error, out, emulated.report()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_sound_kernel_passes(emulated: Device, schedule: str) -> None:
    error, y, report = reverse(emulated, NONE, schedule)
    assert error == 0
    assert report == ""
    np.testing.assert_array_equal(y, np.arange(64)[::-1])


def test_a_missing_barrier(emulated: Device) -> None:
    _, y, report = reverse(emulated, NO_BARRIER)
    if emulated.build == "race":
        assert "data race on shared memory" in report
    else:  # poisoned shared memory: what was not there yet is a NaN
        assert np.isnan(y).any()


def test_a_barrier_in_a_branch(emulated: Device) -> None:
    error, _, report = reverse(emulated, DIVERGENT)
    assert error != 0
    assert "divergent barrier" in report


def test_a_barrier_after_some_threads_returned(emulated: Device) -> None:
    error, _, report = reverse(emulated, EARLY_RETURN)
    assert error != 0
    assert "after others returned" in report


def test_shared_memory_that_nothing_has_written(emulated: Device) -> None:
    _, y, report = reverse(emulated, UNWRITTEN)
    if emulated.build == "race":
        assert "nothing has written" in report
    assert np.isnan(y).any()


@pytest.mark.parametrize("mistake", [SHARED_BOUNDS, GLOBAL_BOUNDS])
def test_out_of_bounds_in_the_race_build(mistake: int) -> None:
    try:
        emulated = Device(build.library("race", (PLANTED,)))
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    error, _, report = reverse(emulated, mistake)
    assert error != 0
    assert "out of bounds" in report


@pytest.mark.parametrize("mistake", [SHARED_BOUNDS, GLOBAL_BOUNDS])
def test_out_of_bounds_under_address_sanitizer(mistake: int) -> None:
    code = (
        "from cuda_on_cpu import build, device, test_emulator as t;"
        f"t.reverse(device.Device(build.library('asan', (t.PLANTED,))), {mistake})"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=build.ROOT / "tests", env=build.asan_environment(), capture_output=True, text=True,
        )  # fmt: skip
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "planted.cu" in done.stderr


@pytest.mark.parametrize("atomic", [True, False])
def test_a_race_between_blocks(emulated: Device, atomic: bool) -> None:
    total = emulated.put(np.zeros(1), "float32", axes=(2,))
    assert emulated.lib.run_count(total.pointer, c.c_bool(atomic)) == 0
    assert emulated.get(total).view(np.int32)[0] == 3
    emulated.free(total.pointer)
    found = "data race on global memory" in emulated.report()
    assert found == (emulated.build == "race" and not atomic)


@pytest.mark.parametrize(("row", "wavefronts"), [(33, 1), (32, 32)])
def test_bank_conflicts_are_counted(row: int, wavefronts: int) -> None:
    try:
        emulated = Device(build.library("race", (PLANTED,)))
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    y = emulated.empty((32,), "float32", axes=(2,))
    emulated.memory_reset()
    assert emulated.lib.run_column(y.pointer, row) == 0
    emulated.free(y.pointer)
    loads = [line for line in emulated.memory_table() if (line.memory, line.kind) == ("shared", "load")]
    assert [(line.kernel, line.count, line.units, line.ideal) for line in loads] == [
        ("column", 1, wavefronts, 1)
    ]


@pytest.mark.parametrize("apart", [1, 2])
def test_16_byte_accesses_are_counted(apart: int) -> None:
    """A warp's 512 bytes are 16 sectors and 4 wavefronts of 8 threads; 32 bytes apart twice that."""
    try:
        emulated = Device(build.library("race", (PLANTED,)))
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    x = emulated.put(np.zeros(256), "float32", axes=(2,))
    y = emulated.empty((256,), "float32", axes=(2,))
    emulated.memory_reset()
    assert emulated.lib.run_pieces(x.pointer, y.pointer, apart) == 0
    emulated.free(x.pointer, y.pointer)
    counted = {(line.memory, line.kind): line for line in emulated.memory_table()}
    assert len(counted) == 4
    for (memory, _), line in counted.items():
        wanted = (4 * apart, 4) if memory == "shared" else (16 * apart, 16)
        assert (line.bytes, line.count, line.units, line.ideal) == (16, 1, *wanted)
