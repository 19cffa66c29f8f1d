"""The cost model of orchid_mix against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.orchid_mix import orchid_mix
from kernel_counts import counted, predicted

from equiconv.bench import model_conditioned_conv, model_short_conv
from equiconv.bench.bench_conditioned_conv import ConditionedCase
from equiconv.bench.bench_orchid_mix import MixCase, inputs
from equiconv.bench.bench_short_conv import ShortCase
from equiconv.bench.model import DEVICES
from equiconv.bench.model_orchid_mix import predict

WITHIN = 0.06  # as of conditioned_conv
# Where a row of positions begins and ends, what taps reach is read one by one, and the emulator takes the
# k-th access of each lane for one instruction: behind such an edge it mixes two rounds, and their sectors.
# In float64 a warp that begins another row meets the banks more evenly.
EDGES = 0.14
CASE = MixCase(length=1024, batch=1, channels=32)


@pytest.mark.parametrize(
    "case",
    [CASE, replace(CASE, keyed=True), replace(CASE, keyed=True, dtype="float64"),
     replace(CASE, keyed=True, dtype="bfloat16"), replace(CASE, keyed=True, layout="bdl")],
    ids=lambda case: f"{case.length}-{case.layout}-{case.keyed}-{case.dtype}",
)  # fmt: skip
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: MixCase) -> None:
    tensors = inputs(case)
    options = {"layout": case.layout, "padding": "circular"}
    grad_out = torch.randn_like(tensors["z"].chunk(3, 1 if case.layout == "bdl" else 2)[0])
    found = counted(race_detector, lambda: orchid_mix(race_detector, tensors, options, grad_out))
    expected = predicted(predict(replace(case, direction="backward"), DEVICES["h200"]).launches)
    assert found.keys() == expected.keys()
    for kernel, count in expected.items():
        edges = EDGES if kernel.startswith("mix") else WITHIN
        assert found[kernel].loads == pytest.approx(count.loads, rel=edges)
        assert found[kernel].stores == pytest.approx(count.stores, rel=WITHIN)
        assert found[kernel].wavefronts == pytest.approx(count.wavefronts, rel=edges)


@pytest.mark.parametrize("keyed", [False, True])
def test_rows_take_less_than_the_ops_one_after_another(keyed: bool) -> None:
    """In (B, L, D), where conditioned_conv asks for a sector for every number."""
    case = MixCase(length=4096, batch=64, channels=256, keyed=keyed, direction="backward")
    h200, shared = DEVICES["h200"], {"length": 4096, "batch": 64, "channels": 256, "layout": "bld"}
    gated = ShortCase(op="short_conv_gated", taps=3, mode="circular", direction="backward", **shared)
    conditioned = ConditionedCase(keyed=keyed, direction="backward", **shared)
    parts = [model_short_conv.predict(gated, h200), model_conditioned_conv.predict(conditioned, h200)]
    assert 2 * predict(case, h200).floor < sum(part.floor for part in parts)


def test_a_length_without_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernels for 1000 positions"):
        predict(replace(CASE, length=1000), DEVICES["h200"])
