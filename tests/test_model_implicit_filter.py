"""The cost model of implicit_filter against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_on_cpu.checks.implicit_filter import Network
from cuda_on_cpu.device import Device
from kernel_counts import counted, predicted

from equiconv.bench.model_implicit_filter import Call


@pytest.mark.parametrize(
    "network",
    [
        Network(128, 33, 64, 1, 64),
        Network(200, 9, 96, 2, 72),
        Network(192, 5, 64, 0, 96, "float64"),
        Network(160, 17, 64, 1, 64, "bfloat16"),
        Network(16384 + 64, 1, 8, 0, 8),
    ],
    ids=str,
)
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, network: Network) -> None:
    """To the byte."""
    n = network
    call = Call(n.length, n.channels, n.features, n.order, n.inner, n.dtype)
    found = counted(race_detector, lambda: network.run(race_detector))
    expected = predicted([*call.forward(), *call.backward()])
    assert found == {kernel: replace(count, operations=0) for kernel, count in expected.items()}
