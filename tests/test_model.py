"""The cost model against the kernels: what it counts is what they do, executed on a CPU."""

from __future__ import annotations

import ctypes
import json
from dataclasses import asdict, replace
from pathlib import Path

import kernel_counts
import pytest
from cuda_on_cpu import build
from cuda_on_cpu.device import Device
from cuda_on_cpu.fft_conv_cases import Case

from equiconv.bench import gpu_cases, gpu_report, harness
from equiconv.bench.model import DEVICES, NOTHING, Count, Launch, Prediction
from equiconv.bench.model_fft_conv import backward, forward, predict
from equiconv.bench.model_fft_conv_tiles import Call

H200 = DEVICES["h200"]
TOLERANCE = 0.02

# Rows begin where a sector does: others cost a sector more now and then.

# Channels are many enough that a warp's sectors hold nothing of the next position in (B, L, D).
SMALL = [
    Case(4096, batch=1, channels=2, shared=False),
    Case(512, batch=2, channels=4),
    Case(1024, batch=3, channels=2, mode="circular", stored="bfloat16"),
    Case(512, batch=300, channels=1, gates="", skip=False, wanted=("grad_filter",)),  # sums in parts
    Case(1024, batch=2, channels=2, shared=False, gates="pre", wanted=("grad_x", "grad_pre_gate")),
    Case(1024, batch=1, channels=32, shared=False, layout="bld"),
    Case(2048, batch=1, channels=32, layout="bld", stored="bfloat16", stored_filter="float32"),
]
FLOAT64 = Case(2048, batch=1, channels=4, shared=False, stored="float64")
LONG = [
    Case(16384, batch=2, channels=1),  # spectra that shared memory has no room for
    Case(32768, batch=1, channels=2, shared=False),
    Case(32768, batch=2, channels=1, taps=65505, mode="bidirectional", gates="", skip=False),
    Case(32768, batch=1, channels=8, shared=False, layout="bld", wanted=()),
]


def predicted(case: Case) -> Count:
    wanted = frozenset(name.removeprefix("grad_") for name in case.wanted)
    call = Call(
        case.batch, case.channels, case.length, case.filter_taps, case.mode, case.shared, case.layout,
        case.stored, case.stored_filter, "pre" in case.gates, "post" in case.gates, case.skip, wanted,
    )  # fmt: skip
    launches = (*forward(call, H200), *backward(call, H200))
    return sum((launch.count for launch in launches), NOTHING)


@pytest.mark.parametrize("case", [*SMALL, FLOAT64, *LONG], ids=str)
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: Case) -> None:
    found = sum(kernel_counts.counted(race_detector, lambda: case.run(race_detector)).values(), NOTHING)
    count = predicted(case)
    assert count.loads == pytest.approx(found.loads, rel=TOLERANCE)
    assert count.stores == pytest.approx(found.stores, rel=TOLERANCE)
    assert count.wavefronts == pytest.approx(found.wavefronts, rel=TOLERANCE)


@pytest.fixture(scope="module")
def counting() -> Device:
    """The kernels with a number type that counts."""
    try:
        library = build.library("fast", (Path(build.HERE, "fft_conv_operations.cpp"),))
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    device = Device(library)
    device.lib.fft_conv_operations.restype = ctypes.c_uint64
    return device


@pytest.mark.parametrize("case", [*SMALL, *LONG], ids=str)
def test_operations_are_those_of_the_kernels(counting: Device, case: Case) -> None:
    before = counting.lib.fft_conv_operations()
    case.run(counting)
    assert predicted(case).operations == pytest.approx(
        counting.lib.fft_conv_operations() - before, rel=TOLERANCE
    )


@pytest.mark.parametrize(("count", "memory", "seconds", "binds"), [
    (Count(), 4.3e12, 1, "memory"),
    (Count(operations=30e12), 0, 1, "arithmetic"),
    (Count(products=395e12), 0, 1, "tensor cores"),
    (Count(wavefronts=132 * 1.75e9), 0, 1, "shared"),  # of 128 bytes, one a clock and multiprocessor
    (Count(), 0, 2e-6, "launches"),
])  # fmt: skip
def test_the_rates_of_an_h200(count: Count, memory: float, seconds: float, binds: str) -> None:
    """4.3 TB/s; 60e12 operations a second in float32, 790e12 in bfloat16; shared memory 128 bytes a clock."""
    prediction = Prediction(H200, (Launch("kernel", 1, 32, count, memory),), 4)
    assert prediction.terms[binds] == pytest.approx(seconds)
    assert prediction.floor == pytest.approx(seconds, abs=3e-6)
    assert prediction.binds == binds


def test_a_floor_is_at_least_every_term() -> None:
    for length in (1024, 4096, 65536, 2**20):
        batch, channels = harness.sizes(length, harness.ELEMENTS["cuda"])
        case = harness.Case(op="fft_conv", length=length, batch=batch, channels=channels)
        alone = predict(case, H200)
        both = predict(replace(case, direction="backward"), H200)
        assert alone.floor >= max(alone.terms.values())
        assert both.floor > 2 * alone.floor
        assert alone.binds in alone.terms
        # x, filter, gates and y, each once, and whatever is kept between launches.
        least = 5 * batch * channels * length * 4
        assert alone.memory == least if length <= 2**14 else alone.memory > least
        half = predict(replace(case, dtype="bfloat16"), H200)
        assert half.memory < alone.memory


def test_nothing_to_do_takes_no_time() -> None:
    case = harness.Case(op="fft_conv", length=8, batch=0, channels=3)
    assert predict(case, H200).floor == 0


def test_the_table_of_results_is_what_the_command_writes() -> None:
    """With the results of a GPU that are kept there, if there are."""
    readme = build.ROOT / "bench" / "results" / "README.md"
    kept = readme.with_name("h200.json")
    rows = json.loads(kept.read_text())["parts"]["model"]["results"]["rows"] if kept.exists() else []
    assert readme.read_text() == gpu_report.rewritten(readme.read_text(), "h200", rows)
    assert (gpu_report.UNMEASURED in readme.read_text()) == (not rows)


def test_a_measured_time_stands_beside_its_prediction() -> None:
    case = gpu_cases.base_case(1024, "forward", "cuda")
    rows = [{**asdict(case), "measured": 0.00125}]
    table = gpu_report.rewritten(gpu_report.BEGIN + gpu_report.END, "h200", rows).splitlines()
    assert [line for line in table if line.endswith("| 1.25 |")] == [table[3]]
    assert table[4].endswith("| not yet run on a GPU |")
