"""The cost model of long_conv_step against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_on_cpu.device import Device
from cuda_on_cpu.long_conv_step import long_conv_step
from kernel_counts import counted, predicted

from equiconv.bench.bench_long_conv_step import inputs
from equiconv.bench.harness import Case
from equiconv.bench.model import DEVICES
from equiconv.bench.model_long_conv_step import CASES, predict

OWN = ("take_tokens", "add_products", "add_ahead")  # order_taps runs once for a filter


def case(length: int, batch: int, channels: int, dtype: str = "float32", **other: str) -> Case:
    sizes = {"length": length, "batch": batch, "channels": channels}
    return Case(op="long_conv_step", layout="bld", dtype=dtype, **sizes, **{"filter": "shared", **other})


@pytest.mark.parametrize(
    "case",
    [
        case(200, 2, 32),
        case(130, 1, 64, "float64"),
        case(70, 2, 32, "bfloat16"),
        case(140, 2, 32, filter="per-sample"),
        case(600, 1, 16),  # a square of transforms, cut
    ],
    ids=lambda case: f"{case.length}-{case.batch}x{case.channels}-{case.dtype}-{case.filter}",
)
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: Case) -> None:
    """To the byte."""
    tensors = inputs(case)
    found = counted(race_detector, lambda: long_conv_step(race_detector, tensors, {"sizes": [1]}))
    expected = predicted(predict(case, DEVICES["h200"]).launches)
    for kernel in OWN:
        assert (kernel in found) == (kernel in expected)
        if kernel in found:
            assert found[kernel] == replace(expected[kernel], operations=0), kernel
    assert ("convolve" in found) == ("convolve" in expected)


def test_a_token_is_bound_by_its_launch() -> None:
    """Mostly one, and of 64 tokens one more or a few: whatever the size, until memory has as much to do."""
    for case in CASES:
        prediction = predict(case, DEVICES["h200"])
        launches = len(prediction.launches) / case.length
        assert 1 < launches < 1 + 2 / 64
        if case.batch * case.channels <= 2048:
            assert prediction.binds == "launches"
