"""What is said about a kernel that goes wrong: which kernel, block and thread, at what line, and why."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from . import build
from .device import Device

# A newcomer's first kernel, with two mistakes: no barrier before a neighbour's element is read, and the last
# thread of the last block writes past the end.
NEWCOMER = """\
#include <cuda_runtime.h>
#include "launch.cuh"

__global__ void differences(const float* x, float* y) {
  __shared__ float tile[64];
  const int t = threadIdx.x, i = blockIdx.x * 64 + t;
  tile[t] = x[i];
  // no __syncthreads() here
  const float next = tile[(t + 1) % 64];
  y[i + OFFSET] = next - tile[t];
}

extern "C" int run_differences(const float* x, float* y) {
  return equiconv::cuda::Launch{dim3(2), dim3(64), 0}(differences, x, y);
}
"""

MISTAKES = """\
#include <cassert>
#include <cuda_runtime.h>
#include "launch.cuh"
#include "ptx.cuh"

enum { two_barriers, deadlock, divide, forever, recursion, half_warp, other_mask, assertion, trap };

__device__ int deeper(int* y, int depth) {
  volatile int here[64] = {depth};
  return depth < 0 ? here[0] : deeper(y, depth + 1) + here[63];
}

__global__ void mistakes(int* y, int which) {
  const int t = threadIdx.x;
  if (which == two_barriers) {
    if (t < 32) __syncthreads();
    else __syncthreads();
  }
  if (which == deadlock) {
    if (t == 3) __syncthreads();
    else if (t < 32) __syncwarp();
  }
  if (which == divide && t == 7) y[0] = 5 / y[0];
  if (which == forever && t == 9)
    while (*static_cast<volatile int*>(y) == 0) {
    }
  if (which == assertion) assert(t != 11);
  if (which == trap && t == 12) __trap();
  if (which == recursion && t == 2) y[0] = deeper(y, 0);
  if (which == half_warp && t < 16) {
    float d[4] = {};
    const unsigned a[4] = {}, b[2] = {};
    equiconv::cuda::ptx::mma<__half>(d, a, b);
  }
  if (which == other_mask && t < 32) y[t] = __shfl_sync(t < 16 ? 0xffffu : 0xffffffffu, t, 0);
}

extern "C" int run_mistakes(int* y, int which) {
  return equiconv::cuda::Launch{dim3(1), dim3(64), 0}(mistakes, y, which);
}
"""
TWO_BARRIERS, DEADLOCK, DIVIDE, FOREVER, RECURSION, HALF_WARP, OTHER_MASK, ASSERTION, TRAP = range(9)


def line_of(source: str, text: str) -> int:
    return next(i for i, line in enumerate(source.splitlines(), 1) if text in line)


def device(name: str, build_name: str, source: str, folder: Path) -> Device:
    file = folder / f"{name}.cu"
    file.write_text(source)
    try:
        return Device(build.library(build_name, (file,)), build_name)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


def differences(emulated: Device) -> tuple[int, np.ndarray, str]:
    emulated.schedule("forward")
    x = emulated.array(np.arange(128, dtype=np.float32) ** 2, "x")
    y = emulated.array(np.zeros(128, np.float32), "y")
    error = emulated.lib.run_differences(x, y)
    result = emulated.read(y), emulated.report()
    emulated.free_all()
    return error, *result


def test_a_newcomers_missing_barrier(tmp_path: Path) -> None:
    source = NEWCOMER.replace("OFFSET", "0")
    write, read = line_of(source, "tile[t] = x[i]"), line_of(source, "tile[(t + 1) % 64]")
    error, y, report = differences(device("newcomer", "race", source, tmp_path))
    assert error == 0
    assert "data race on shared memory" in report
    assert f"write by thread 1 at newcomer.cu:{write}" in report
    assert f"read by thread 0 at newcomer.cu:{read}" in report
    assert "in kernel differences, block (0,0,0), thread (1,0,0)" in report
    _, y, _ = differences(device("newcomer", "fast", source, tmp_path))
    assert np.isnan(y).any()  # what a neighbour has not written yet


def test_a_newcomers_write_out_of_bounds(tmp_path: Path) -> None:
    source = NEWCOMER.replace("OFFSET", "1").replace("// no __syncthreads() here", "__syncthreads();")
    line = line_of(source, "y[i + 1]")
    error, _, report = differences(device("newcomer", "race", source, tmp_path))
    assert error != 0
    assert f"out of bounds: write of 4 bytes at newcomer.cu:{line}" in report
    assert "0 bytes past the end of the 512 bytes of y" in report
    assert "in kernel differences, block (1,0,0), thread (63,0,0)" in report

    error, _, report = differences(device("newcomer", "fast", source, tmp_path))
    assert error != 0
    assert "past the end of the 512 bytes of y" in report

    far = NEWCOMER.replace("OFFSET", "4096").replace("// no __syncthreads() here", "__syncthreads();")
    error, _, report = differences(device("newcomer", "fast", far, tmp_path))
    assert error != 0
    assert re.search(r"out of bounds: access to \d+ bytes (past the end of|before) the 512 bytes of", report)
    assert f"at newcomer.cu:{line} in differences" in report
    assert "in kernel differences, block (0,0,0), thread (" in report


def test_a_newcomers_write_out_of_bounds_under_address_sanitizer(tmp_path: Path) -> None:
    source = NEWCOMER.replace("OFFSET", "1").replace("// no __syncthreads() here", "__syncthreads();")
    path = device_path("asan", source, tmp_path)
    code = (
        "from cuda_on_cpu import device, test_emulator_reports as t;"
        f"t.differences(device.Device({str(path)!r}, 'asan'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=build.ROOT / "tests", env=build.asan_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"newcomer.cu:{line_of(source, 'y[i + 1]')}" in done.stderr
    assert "0 bytes past the end of the 512 bytes of y" in done.stderr
    assert "in kernel differences, block (1,0,0), thread (63,0,0)" in done.stderr


def device_path(build_name: str, source: str, folder: Path) -> Path:
    file = folder / "newcomer.cu"
    file.write_text(source)
    try:
        return build.library(build_name, (file,))
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=["fast", "race"])
def emulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Device:
    return device("mistakes", request.param, MISTAKES, tmp_path_factory.mktemp("mistakes"))


def mistake(emulated: Device, which: int) -> str:
    emulated.schedule("forward")
    y = emulated.array(np.zeros(64, np.int32), "y")
    assert emulated.lib.run_mistakes(y, which) != 0
    emulated.free_all()
    return emulated.report()


def test_two_barriers(emulated: Device) -> None:
    report = mistake(emulated, TWO_BARRIERS)
    first = line_of(MISTAKES, "if (t < 32) __syncthreads()")
    assert "divergent barrier" in report
    assert f"threads 0-31: waiting for the block at mistakes.cu:{first}" in report
    assert f"threads 32-63: waiting for the block at mistakes.cu:{first + 1}" in report


def test_a_deadlock(emulated: Device) -> None:
    report = mistake(emulated, DEADLOCK)
    line = line_of(MISTAKES, "if (t == 3) __syncthreads()")
    assert "deadlock" in report
    assert f"threads 3: waiting for the block at mistakes.cu:{line}" in report
    assert f"0-2,4-31: waiting in __syncwarp (mask ffffffff) at mistakes.cu:{line + 1}" in report
    assert "threads 32-63: returned from the kernel" in report


def test_a_division_by_zero(emulated: Device) -> None:
    report = mistake(emulated, DIVIDE)
    assert "crash: arithmetic" in report
    assert f"at mistakes.cu:{line_of(MISTAKES, '5 / y[0]')} in mistakes" in report
    assert "in kernel mistakes, block (0,0,0), thread (7,0,0)" in report


@pytest.mark.parametrize(("which", "said", "thread", "text"), [
    (ASSERTION, "assertion that does not hold: t != 11", 11, "assert(t != 11)"),
    (TRAP, "crash: illegal instruction (__trap", 12, "__trap()"),
])  # fmt: skip
def test_a_thread_that_gives_up(emulated: Device, which: int, said: str, thread: int, text: str) -> None:
    report = mistake(emulated, which)
    assert said in report
    assert f"at mistakes.cu:{line_of(MISTAKES, text)}" in report
    assert f"in kernel mistakes, block (0,0,0), thread ({thread},0,0)" in report


def test_a_full_stack(emulated: Device) -> None:
    report = mistake(emulated, RECURSION)
    assert "the thread's stack is full" in report
    assert "in deeper" in report
    assert "thread (2,0,0)" in report


def test_a_loop_without_end(emulated: Device) -> None:
    emulated.lib.cuda_on_cpu_seconds(1)
    try:
        report = mistake(emulated, FOREVER)
    finally:
        emulated.lib.cuda_on_cpu_seconds(300)
    assert "no end" in report
    assert "thread (9,0,0)" in report
    assert "at mistakes.cu:" in report


def test_a_product_by_half_a_warp(emulated: Device) -> None:
    report = mistake(emulated, HALF_WARP)
    line = line_of(MISTAKES, "ptx::mma<__half>")
    assert "mma needs all 32 lanes of the warp" in report
    assert re.search(rf"threads 0-15: waiting in mma .* at ptx.cuh:\d+, called at mistakes.cu:{line}", report)
    assert "threads 16-31: returned from the kernel" in report


def test_masks_that_disagree(emulated: Device) -> None:
    report = mistake(emulated, OTHER_MASK)
    line = line_of(MISTAKES, "? 0xffffu :")
    assert f"shuffle reads lane 0, which has returned from the kernel at mistakes.cu:{line}" in report


def test_a_failed_launch_leaves_a_device_that_works(emulated: Device) -> None:
    assert mistake(emulated, DEADLOCK)
    y = emulated.array(np.zeros(64, np.int32), "y")
    assert emulated.lib.run_mistakes(y, -1) == 0
    assert emulated.report() == ""
    emulated.free_all()


MANY = """\
#include <cuda_runtime.h>
#include "launch.cuh"
__global__ void many(double* y, int* count, int bad) {
  double s = 0;
  for (int i = 0; i < 3000; ++i) s += 1.0 / (1 + i + int(blockIdx.x));
  if (int(blockIdx.x) == bad && threadIdx.x == 5) __syncthreads();
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = s;
  atomicAdd(count, 1);
}
extern "C" int run_many(double* y, int* count, int bad) {
  return equiconv::cuda::Launch{dim3(600), dim3(64), 0}(many, y, count, bad);
}
"""


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random:3"])
def test_two_processes_are_as_one(schedule: str, tmp_path: Path) -> None:
    """Of many blocks half run in a second process: same results, same reports."""
    emulated = device("many", "fast", MANY, tmp_path)
    found = []
    for processes in (1, 2):
        emulated.lib.cuda_on_cpu_processes(processes)
        for bad in (-1, 2, 590):
            emulated.schedule(schedule)
            y = emulated.array(np.zeros(600 * 64), "y")
            count = emulated.array(np.zeros(1, np.int32), "count")
            error = emulated.lib.run_many(y, count, bad)
            whole = (emulated.read(y), emulated.read(count)) if bad < 0 else ()
            found.append((processes, bad, error, emulated.report(), *whole))
            emulated.free_all()
    emulated.lib.cuda_on_cpu_processes(2)
    for (_, bad, *one), (_, _, *two) in zip(found[:3], found[3:], strict=True):
        assert one[:2] == two[:2]
        assert (one[1] == "") == (bad < 0)
        if bad < 0:
            np.testing.assert_array_equal(one[2], two[2])
            assert one[3][0] == two[3][0] == 600 * 64
        else:
            assert f"block ({bad},0,0)" in one[1]


NOT_EMULATED = {
    "tex1Dfetch<float>(0, 1)": "tex1Dfetch",
    "__nv_tex_surf_handler(0)": "__nv_tex_surf_handler",
    "atomicAdd(static_cast<long*>(nullptr), 1L)": "atomicAdd",
    "atomicSub(static_cast<unsigned long long*>(nullptr), 1ull)": "atomicSub",
    "__vadd4(1u, 2u)": "__vadd4",
    "__shfl_sync(~0u, make_float4(0, 0, 0, 0), 0)": "CUDA has no shuffle of this type",
    "__reduce_add_sync(~0u, 1.0f)": "__reduce_add_sync",
    "__cluster_dims_are(0)": "__cluster_dims_are",
}


@pytest.mark.parametrize("call", NOT_EMULATED)
def test_what_is_not_emulated_does_not_compile(call: str, tmp_path: Path) -> None:
    source = f"#include <cuda_runtime.h>\n__global__ void k() {{ (void)({call}); }}\n"
    with pytest.raises(RuntimeError, match="error:.*" + re.escape(NOT_EMULATED[call])):
        device("k", "fast", source, tmp_path)


def test_clusters_do_not_compile(tmp_path: Path) -> None:
    source = "#include <cuda_runtime.h>\n__global__ void __cluster_dims__(2, 1, 1) k() {}\n"
    with pytest.raises(RuntimeError, match="error: clusters are not emulated"):
        device("k", "fast", source, tmp_path)


def test_a_function_of_the_runtime_that_is_not_there_does_not_link(tmp_path: Path) -> None:
    source = '#include <cuda_runtime.h>\nextern "C" int f() { return cudaDeviceReset(); }\n'
    with pytest.raises(RuntimeError, match="undefined reference to `cudaDeviceReset'"):
        device("k", "fast", source, tmp_path)


def test_only_two_files_know_the_compiler() -> None:
    """Kernels that ask would be other kernels here than on a GPU."""
    asking = {p.name for p in build.KERNELS.iterdir() if re.search(r"__CUDA(CC|_ARCH)__", p.read_text())}
    assert asking <= {"launch.cuh", "ptx.cuh"}
