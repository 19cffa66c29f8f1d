"""The cost model of pair_invariants against its kernels, executed on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.pair_invariants import pair_invariants
from kernel_counts import counted
from torch import Tensor

from equiconv.bench.bench_pair_invariants import BUNDLE, CLOUD, DISTANCES
from equiconv.bench.model import DEVICES, NOTHING
from equiconv.bench.model_pair_invariants import CASES, Call, launches, predict
from equiconv.reference.pair_invariants import pair_invariants as reference

# Factors of a product that are neighbours, the emulator takes for one access of twice the size in the lanes
# where it would be aligned, and for two accesses more in the others. Counted are up to 7.5 % more wavefronts.
PRODUCTS = 0.075
# Vectors of pairs and of the grid are stored and loaded by one line; of two accesses that some lanes make and
# others do not, the emulator mixes the lanes. Counted are up to 4 % more bytes.
GRID = 0.04

BUNDLES = Call(64, 16, 3, 3, "float32", grid=True)
CLOUDS = Call(256, 1, 3, 3, "float32", senders=True, complete=True, wanted=("rel", "receiver", "sender"))
CALLS = [
    BUNDLES,
    replace(BUNDLES, dtype="float64"),
    replace(BUNDLES, dtype="bfloat16"),
    replace(BUNDLES, degree=1, pairs=77, orientations=21),  # a block is not full, nor the last one
    replace(BUNDLES, dimensions=2, pairs=100, orientations=20),
    replace(BUNDLES, degree=2, pairs=3, orientations=150, extra=1, wanted=("rel", "extra")),  # in two turns
    replace(BUNDLES, degree=5, pairs=40, orientations=3, extra=2, wanted=("rel", "extra")),  # fewer threads
    CLOUDS,
    replace(CLOUDS, degree=1, complete=False),
    replace(
        CLOUDS, dimensions=2, degree=2, dtype="float64", pairs=200, extra=2, wanted=(*CLOUDS.wanted, "extra")
    ),
    Call(300, 1, 3, 1, "float32"),
    Call(300, 1, 2, 1, "bfloat16"),
]


def tensors(call: Call) -> dict[str, Tensor]:
    vectors = (call.pairs, call.dimensions)
    shapes = {"rel": vectors}
    if call.grid:
        shapes["grid"] = (call.orientations, call.dimensions)
    if call.senders:
        shapes |= {"receiver": vectors, "sender": vectors}
    if call.extra:
        shapes["extra"] = (call.pairs, call.extra)
    return {name: torch.randn(shape).to(getattr(torch, call.dtype)) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "call", CALLS, ids=lambda c: f"{c.pairs}x{c.orientations}-{c.dimensions}-{c.degree}-{c.extra}-{c.dtype}"
)
def test_bytes_and_wavefronts_are_those_of_the_kernels(race_detector: Device, call: Call) -> None:
    given, options = tensors(call), {"degree": call.degree, "complete": call.complete}
    out = reference(**given, **options)
    assert out.shape[-1] == call.features
    kernels = counted(
        race_detector, lambda: pair_invariants(race_detector, given, options, torch.randn_like(out))
    )
    assert kernels.keys() == {"pair_pass"}
    found = kernels["pair_pass"]
    expected = sum((launch.count for launch in launches(call, "backward")), NOTHING)
    assert found.stores == expected.stores
    assert found.loads == pytest.approx(expected.loads, rel=GRID if call.grid else 0)
    mixed = PRODUCTS if call.degree > 1 else GRID if call.grid else 0
    assert found.wavefronts == pytest.approx(expected.wavefronts, rel=mixed)


def test_each_tensor_comes_from_memory_once_a_pass() -> None:
    forward, backward = predict(replace(CLOUD, direction="backward"), DEVICES["h200"]).launches
    features = 34
    assert forward.memory == CLOUD.length * (9 + features) * 4
    assert backward.memory == CLOUD.length * (9 + features + 3) * 4


def test_what_binds() -> None:
    """Features written; of gradients, their products in shared memory; of few distances, launches."""
    many = replace(BUNDLE, length=16 * BUNDLE.length)
    assert predict(many, DEVICES["h200"]).binds == "memory"
    assert predict(replace(many, dtype="bfloat16"), DEVICES["h200"]).binds == "shared"
    _, backward = predict(replace(many, direction="backward"), DEVICES["h200"]).launches
    terms = backward.terms(DEVICES["h200"], 4)
    assert max(terms, key=lambda name: terms[name]) == "shared"
    assert predict(DISTANCES, DEVICES["h200"]).binds == "launches"


def test_without_pairs_nothing_is_launched() -> None:
    assert predict(replace(CASES[0], length=0), DEVICES["h200"]).launches == ()
