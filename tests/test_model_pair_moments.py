"""The cost model of pair_moments against its kernels, executed on a CPU."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.pair_moments import pair_moments

from equiconv import Graph
from equiconv.bench.model import NOTHING
from equiconv.bench.model_pair_moments import Call, launches

TOLERANCE = 0.02


@pytest.mark.parametrize(
    ("points", "degree", "orientations", "functions", "channels", "dtype", "shared"),
    [
        (16, 16, 1, 32, 64, "float32", False),
        (8, 8, 2, 80, 32, "bfloat16", False),
        (24, 24, 2, 16, 48, "float32", True),
        (16, 16, 1, 16, 128, "float64", False),
    ],
)
def test_wavefronts_and_bytes_are_those_of_the_kernels(
    race_detector: Device,
    points: int,
    degree: int,
    orientations: int,
    functions: int,
    channels: int,
    dtype: str,
    shared: bool,
) -> None:
    pairs = torch.arange(points * degree)
    graph = Graph.from_pairs(pairs % points, pairs // degree, points)
    assert graph.num_senders == points
    stored = getattr(torch, dtype)
    x = torch.randn(points, orientations, channels, dtype=stored)
    basis = torch.randn(len(pairs), *([] if shared else [orientations]), functions, dtype=stored)
    grad_out = torch.randn(points, orientations, functions, channels, dtype=stored)
    race_detector.report()
    race_detector.memory_reset()
    race_detector.schedule("forward")
    pair_moments(race_detector, {"x": x, "basis": basis}, {"graph": graph}, grad_out)
    counted: Counter[tuple[str, str, str]] = Counter()
    for line in race_detector.memory_table():
        counted[line.kernel.partition("<")[0], line.memory, line.kind] += line.units
    assert race_detector.report() == ""

    call = Call(len(pairs), points, points, orientations, functions, channels, dtype, shared)
    found = launches(call, "backward")
    kernels = ("moments", "pair_products", "sum_messages")
    assert {launch.kernel for launch in found} == set(kernels)
    for kernel in kernels:
        count = sum((launch.count for launch in found if launch.kernel == kernel), NOTHING)
        wavefronts = counted[kernel, "shared", "load"] + counted[kernel, "shared", "store"]
        assert wavefronts == pytest.approx(count.wavefronts, rel=TOLERANCE)
        assert 32 * counted[kernel, "global", "load"] == pytest.approx(count.loads, rel=TOLERANCE)
        assert 32 * counted[kernel, "global", "store"] == pytest.approx(count.stores, rel=TOLERANCE)
