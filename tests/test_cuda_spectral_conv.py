"""The CUDA kernels of spectral_conv, run on the CPU by tests/cuda_on_cpu, at lengths that have them."""

from __future__ import annotations

import dataclasses

import contract
import pytest
import test_spectral_conv
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.spectral_conv import spectral_conv
from row_kernels import RowKernels
from test_spectral_conv import ALL, GATES, PER_SAMPLE, sample

SAMPLES = (
    sample("shared", 3, 2, 64, extras=ALL),
    sample("per-sample", 3, 2, 64, spectrum=PER_SAMPLE, extras=ALL),
    sample("real-shared", 3, 2, 128, real=True, layout="bld", extras=["skip"]),
    sample("real-per-sample", 2, 3, 128, spectrum=PER_SAMPLE, real=True, extras=ALL),
    sample("plain", 2, 1, 64),
    sample("plain-per-sample", 2, 3, 128, spectrum=PER_SAMPLE, layout="bld"),
    sample("strided", 2, 3, 256, extras=ALL, strided=True),
    sample("strided-real", 2, 3, 512, spectrum=PER_SAMPLE, real=True, layout="bld", extras=ALL, strided=True),
    sample("gates-alone", 2, 2, 1024, spectrum=PER_SAMPLE, extras=GATES),
    sample("channels-last", 2, 2, 2048, layout="bld", extras=ALL),
    sample("long", 2, 1, 4096, extras=ALL),
    sample("batches-in-chunks", 5, 300, 64, extras=ALL),
    sample("batches-in-chunks-per-sample", 5, 600, 64, spectrum=PER_SAMPLE, extras=ALL),
    sample("float32-weights", 2, 2, 256, real=True, extras=ALL, float32=frozenset(["spectrum", "skip"])),
)


class TestKernels(RowKernels):
    op = dataclasses.replace(test_spectral_conv.TestContract.op, samples=SAMPLES, on_emulator=spectral_conv)
    longest = sample("longest", 1, 1, 8192, extras=ALL)
    another = sample("", 1, 1, 96)
    ordered = ("shared", "per-sample", "strided", "batches-in-chunks")
    raced = ("shared", "per-sample", "real-shared", "real-per-sample", "plain", "strided")
    alone = ("shared", "per-sample", "real-per-sample")


results = TestKernels.results


@pytest.mark.parametrize("spectrum", ["DF", PER_SAMPLE])
def test_imaginary_parts_that_no_real_filter_has(emulator: Device, spectrum: str) -> None:
    """They are not read, at frequency 0 and at half the rate, and their gradient is zero."""
    given = sample("", 3, 2, 64, spectrum=spectrum, extras=ALL)
    tensors = contract.detached(given.make(torch.float32, "cpu"))
    clean = results(emulator, given, tensors)
    tensors["spectrum"] = tensors["spectrum"].clone()
    tensors["spectrum"].imag[..., [0, -1]] = float("nan")
    poisoned = results(emulator, given, tensors)
    contract.assert_same_bits(poisoned, clean)
    assert not clean[2].imag[..., [0, -1]].any()


@pytest.mark.parametrize("where", ["x", "spectrum", "post_gate"])
def test_nan_stays_in_its_row(emulator: Device, where: str) -> None:
    """In the result, and in the gradients of all that a row has of its own."""
    given = sample("", 3, 2, 64, spectrum=PER_SAMPLE, extras=ALL)
    tensors = contract.detached(given.make(torch.float32, "cpu"))
    clean = results(emulator, given, tensors)
    tensors[where] = tensors[where].clone()
    tensors[where][1, 1, 5] = float("nan")
    poisoned = results(emulator, given, tensors)
    others = torch.ones(3, 2, dtype=torch.bool)
    others[1, 1] = False
    for name, a, b in zip(("y", *tensors), poisoned, clean, strict=True):
        if name != "skip":
            contract.assert_same_bits([a[others]], [b[others]])
    assert poisoned[0].isnan().any()
