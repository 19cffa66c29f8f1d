"""The cost model of spectral_conv against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.spectral_conv import spectral_conv
from kernel_counts import counted, predicted

from equiconv.bench import model_fft_conv
from equiconv.bench.bench_spectral_conv import inputs
from equiconv.bench.harness import Case
from equiconv.bench.model import DEVICES
from equiconv.bench.model_spectral_conv import predict

WITHIN = 0.02
CASE = Case(op="spectral_conv", length=1024, batch=2, channels=2, mode="circular")


@pytest.mark.parametrize(
    "case",
    [CASE, replace(CASE, filter="shared"), replace(CASE, gates=False, filter="shared", length=4096),
     replace(CASE, dtype="float64", channels=3), replace(CASE, dtype="bfloat16", length=2048),
     replace(CASE, filter="shared", layout="bld", batch=5, channels=300)],
    ids=lambda case: f"{case.length}-{case.layout}-{case.filter}-{case.dtype}",
)  # fmt: skip
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: Case) -> None:
    tensors = inputs(case)
    options, grad_out = {"layout": case.layout}, torch.randn_like(tensors["x"])
    found = counted(race_detector, lambda: spectral_conv(race_detector, tensors, options, grad_out))
    expected = predicted(predict(replace(case, direction="backward"), DEVICES["h200"]).launches)
    assert found.keys() == expected.keys()
    for kernel, count in expected.items():
        assert found[kernel].loads == pytest.approx(count.loads, rel=WITHIN)
        assert found[kernel].stores == pytest.approx(count.stores, rel=WITHIN)
        assert found[kernel].wavefronts == pytest.approx(count.wavefronts, rel=WITHIN)


def test_a_length_without_kernels_is_fft_conv() -> None:
    case = replace(CASE, length=1000)
    expected = model_fft_conv.predict(replace(case, op="fft_conv"), DEVICES["h200"])
    assert predict(case, DEVICES["h200"]) == expected
