"""The benchmark of the five-layer model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from equiconv.bench import bench_ponita, harness
from equiconv.bench.bench_ponita import BULK, FORCES, ModelCase

ANTIPODAL = [replace(case, antipodal=True) for case in (BULK, FORCES)]


@pytest.mark.parametrize(
    "case",
    [BULK, FORCES, *ANTIPODAL],
    ids=["points", "forces", "antipodal-points", "antipodal-forces"],
)
def test_contestants_take_the_same_step(case: ModelCase) -> None:
    """Outputs and the gradients of everything, as they are timed."""
    small = replace(
        case,
        length=6,
        cloud=case.cloud and 3,
        degree=3 if case.cloud else 4,
        orientations=4,
        functions=5,
        channels=4,
    )
    small = replace(small, layers=2, dtype="float64")
    results = {}
    for name in bench_ponita.MODELS:
        inputs, options = bench_ponita.inputs(small), bench_ponita.options(small)
        torch.manual_seed(0)
        results[name] = harness.step(bench_ponita.contestant(name), inputs, options, small.direction)()
    for name, found in results.items():
        for a, b in zip(found, results["eager"], strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )
