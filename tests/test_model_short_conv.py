"""The cost model of short_conv and its gated form against their kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.short_conv import short_conv
from kernel_counts import counted, predicted

from equiconv.bench.bench_short_conv import ShortCase, inputs, options
from equiconv.bench.model import DEVICES
from equiconv.bench.model_short_conv import predict

# A tile's rows, or columns, are no whole number of rounds of a block: its last round is not full.
ROUNDS = 0.02
# In (B, D, L) the edges of a tile are read one by one, by the lanes of a warp that happen to be there; and
# the emulator takes the k-th access of each lane for one instruction, which behind such an edge mixes two
# rounds, and their sectors. Counted are 3 % to 15 % more bytes and wavefronts than the model has; in float64,
# with two numbers in a lane's 16 bytes, up to 20 % more bytes, and 5 % fewer wavefronts where a warp begins
# another row.
EDGES = {"float32": 0.15, "bfloat16": 0.15, "float64": 0.21}

COLUMNS = ShortCase(batch=2, length=320, channels=32)
CASES = [
    COLUMNS,
    replace(COLUMNS, channels=64, taps=16),
    replace(COLUMNS, taps=7, mode="circular_centered"),
    replace(COLUMNS, activation="silu"),
    replace(COLUMNS, dtype="bfloat16"),
    replace(COLUMNS, dtype="float64"),
    replace(COLUMNS, op="short_conv_gated"),
    *(replace(COLUMNS, layout="bdl", dtype=dtype) for dtype in ("float32", "bfloat16", "float64")),
    replace(COLUMNS, layout="bdl", taps=16),
    replace(COLUMNS, layout="bdl", op="short_conv_gated"),
]


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda c: f"{c.op}-{c.layout}-{c.channels}-{c.taps}-{c.mode}-{c.activation}-{c.dtype}",
)
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, case: ShortCase) -> None:
    tensors = inputs(case)
    grad_out = torch.randn_like(next(iter(tensors.values())))
    if case.op == "short_conv_gated":  # of x0 and u
        grad_out = torch.stack(grad_out.chunk(3, 1 if case.layout == "bdl" else 2)[:2])
    found = counted(race_detector, lambda: short_conv(race_detector, tensors, options(case), grad_out))
    expected = predicted(predict(replace(case, direction="backward"), DEVICES["h200"]).launches)
    assert found.keys() == expected.keys()
    edges = EDGES[case.dtype] if case.layout == "bdl" else 0
    for kernel, count in expected.items():
        assert found[kernel].loads == pytest.approx(count.loads, rel=edges)
        assert found[kernel].stores == count.stores
        assert found[kernel].wavefronts == pytest.approx(count.wavefronts, rel=max(edges, ROUNDS))
