"""The cost model of gate against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.gate import gate
from kernel_counts import counted, predicted

from equiconv.bench.bench_gate import GateCase, inputs
from equiconv.bench.model import DEVICES
from equiconv.bench.model_gate import predict


@pytest.mark.parametrize(
    "case",
    [
        GateCase(length=640, channels=256),  # sums in several parts
        GateCase(length=200, channels=160),  # a second tile of channels, not full
        GateCase(length=130, channels=96, dtype="float64"),
        GateCase(length=300, channels=320, dtype="bfloat16"),
    ],
    ids=lambda case: f"{case.length}x{case.channels}-{case.dtype}",
)
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: GateCase) -> None:
    """To the byte."""
    tensors = inputs(case)
    x = tensors["x"]
    options, grad_out = {"activation": case.activation, "dim": -1}, torch.randn_like(x)
    found = counted(race_detector, lambda: gate(race_detector, tensors, options, grad_out))
    expected = predicted(predict(replace(case, direction="backward"), DEVICES["h200"]).launches)
    for kernel in ("everywhere", "sum_rows"):  # both biases, with every 16 bytes of x
        expected[kernel] = replace(expected[kernel], loads=expected[kernel].loads + 2 * x.nbytes)
    assert found == {kernel: replace(count, operations=0) for kernel, count in expected.items()}
