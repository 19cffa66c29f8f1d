"""The CUDA kernels of conditioned_conv, run on the CPU by tests/cuda_on_cpu, at lengths that have them."""

from __future__ import annotations

import dataclasses

import contract
import pytest
import test_conditioned_conv
import torch
from cuda_on_cpu.conditioned_conv import conditioned_conv
from cuda_on_cpu.device import Device
from row_kernels import RowKernels
from test_conditioned_conv import ALL, SIGNALS, TYPES, WEIGHTS, sample

SAMPLES = (
    sample("magnitude", 3, 2, 64, 3, extras=ALL),
    sample("correlation", 3, 2, 64, 4, keyed=True, taps=5, extras=ALL),
    sample("plain-magnitude", 2, 1, 64, 1),
    sample("plain-correlation", 2, 3, 128, 2, keyed=True, layout="bld", extras=["skip"]),
    sample("widest-magnitude", 1, 2, 64, 16, layout="bld", extras=ALL),
    sample("widest-correlation", 1, 2, 64, 15, keyed=True, extras=ALL),
    sample("strided", 2, 3, 256, 5, keyed=True, extras=ALL, strided=True),
    sample("strided-magnitude", 2, 3, 512, 5, layout="bld", taps=33, extras=ALL, strided=True),
    sample("gates-alone", 2, 2, 1024, 3, keyed=True, extras=["pre_gate", "post_gate"]),
    sample("static-alone", 2, 2, 1024, 3, extras=["filter", "frequency_bias"]),
    sample("channels-last", 2, 2, 2048, 3, keyed=True, layout="bld", extras=ALL),
    sample("long-magnitude", 2, 1, 4096, 5, extras=ALL),
    sample("batches-in-chunks", 5, 300, 64, 2, keyed=True, extras=ALL),
    sample("float32-weights", 2, 2, 256, 3, keyed=True, extras=ALL, float32=frozenset(WEIGHTS)),
)


class TestKernels(RowKernels):
    op = dataclasses.replace(
        test_conditioned_conv.TestContract.op, samples=SAMPLES, on_emulator=conditioned_conv
    )
    longest = sample("longest", 1, 1, 8192, 3, keyed=True, extras=ALL)
    another = sample("", 1, 1, 96)
    ordered = ("magnitude", "correlation", "strided", "batches-in-chunks")
    raced = ("magnitude", "correlation", "plain-magnitude", "widest-correlation", "strided")
    alone = ("magnitude", "correlation")


results, named = TestKernels.results, TestKernels.named


def test_a_magnitude_of_zero_has_derivative_zero(emulator: Device) -> None:
    tensors = named("magnitude").make(torch.float32, "cpu")
    tensors["query"] = torch.zeros_like(tensors["query"])
    _, *gradients = results(emulator, named("magnitude"), tensors)
    assert not gradients[list(tensors).index("query")].any()
    assert all(gradient.isfinite().all() for gradient in gradients)


@TYPES
@pytest.mark.parametrize("where", ["x", "query", "post_gate"])
def test_nan_stays_in_its_row(emulator: Device, keyed: bool, where: str) -> None:
    """In the result, and in the gradients of all signals."""
    given = sample("", 3, 2, 64, keyed=keyed, extras=["pre_gate", "post_gate", "skip"])
    tensors = contract.detached(given.make(torch.float32, "cpu"))
    clean = results(emulator, given, tensors)
    tensors[where] = tensors[where].clone()
    tensors[where][1, 1, 5] = float("nan")
    poisoned = results(emulator, given, tensors)
    others = torch.ones(3, 2, dtype=torch.bool)
    others[1, 1] = False
    for name, a, b in zip(("y", *tensors), poisoned, clean, strict=True):
        if name == "y" or name in SIGNALS:
            contract.assert_same_bits([a[others]], [b[others]])
    assert poisoned[0].isnan().any()
