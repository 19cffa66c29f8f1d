"""The cost model of conditioned_conv against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_on_cpu.conditioned_conv import conditioned_conv
from cuda_on_cpu.device import Device
from kernel_counts import counted, predicted

from equiconv.bench.bench_conditioned_conv import ConditionedCase, inputs
from equiconv.bench.model import DEVICES
from equiconv.bench.model_conditioned_conv import predict

WITHIN = 0.06  # the few last frequencies and taps of a warp are counted whole, or not
CASE = ConditionedCase(length=1024, batch=2, channels=2)


@pytest.mark.parametrize(
    "case",
    [CASE, replace(CASE, keyed=True), replace(CASE, keyed=True, dtype="float64"),
     replace(CASE, dtype="bfloat16", length=2048), replace(CASE, keyed=True, layout="bld")],
    ids=lambda case: f"{case.length}-{case.layout}-{case.keyed}-{case.dtype}",
)  # fmt: skip
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: ConditionedCase) -> None:
    tensors = inputs(case)
    options, grad_out = {"layout": case.layout}, torch.randn_like(tensors["x"])
    found = counted(race_detector, lambda: conditioned_conv(race_detector, tensors, options, grad_out))
    expected = predicted(predict(replace(case, direction="backward"), DEVICES["h200"]).launches)
    assert found.keys() == expected.keys()
    for kernel, count in expected.items():
        assert found[kernel].loads == pytest.approx(count.loads, rel=WITHIN)
        assert found[kernel].stores == pytest.approx(count.stores, rel=WITHIN)
        assert found[kernel].wavefronts == pytest.approx(count.wavefronts, rel=WITHIN)


def test_a_length_without_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernels for 1000 positions"):
        predict(replace(CASE, length=1000), DEVICES["h200"])
