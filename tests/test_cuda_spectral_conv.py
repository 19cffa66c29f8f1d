"""The CUDA kernels of spectral_conv, run on the CPU by tests/cuda_on_cpu, at lengths that have them."""

from __future__ import annotations

import dataclasses
from typing import Any

import contract
import pytest
import test_spectral_conv
import torch
from contract import Sample
from cuda_on_cpu.device import Device
from cuda_on_cpu.spectral_conv import fuses, spectral_conv
from test_spectral_conv import ALL, GATES, PER_SAMPLE, sample
from torch import Tensor

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
LONGEST = sample("longest", 1, 1, 8192, extras=ALL)  # of float32


class TestKernels:
    op = dataclasses.replace(test_spectral_conv.TestContract.op, samples=SAMPLES, on_emulator=spectral_conv)

    def test_values(self, sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
        """The result and all gradients, measured against the reference in float64."""
        check(emulator, sample, dtype)


def check(device: Device, sample: Sample, dtype: torch.dtype) -> None:
    tensors = sample.make(dtype, "cpu")
    contract.check_against_reference(TestKernels.op, sample, tensors, results(device, sample, tensors))


def results(device: Device, sample: Sample, tensors: dict[str, Tensor], **wanted: Any) -> list[Tensor]:
    device.report()
    grad_out = contract.random_like(tensors["x"])
    found = spectral_conv(device, contract.detached(tensors), sample.options, grad_out, **wanted)
    assert device.report() == ""
    return found


def named(name: str) -> Sample:
    return next(sample for sample in SAMPLES if sample.name == name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("sm", [80, 90])
def test_the_longest_row(emulator: Device, sm: int, dtype: torch.dtype) -> None:
    emulator.schedule("forward")
    emulator.architecture(sm)
    try:
        check(emulator, LONGEST, dtype)
    finally:
        emulator.architecture(90)


@pytest.mark.parametrize(
    ("dtype", "sm", "longest"), [("float32", 80, 8192), ("bfloat16", 90, 8192), ("float32", 86, 4096),
                                 ("float64", 90, 4096), ("float64", 80, 4096), ("float64", 86, 2048)]
)  # fmt: skip
def test_which_lengths_have_kernels(emulator: Device, dtype: str, sm: int, longest: int) -> None:
    emulator.architecture(sm)
    try:
        having = [length for length in range(1, 20000) if fuses(emulator, length, dtype)]
    finally:
        emulator.architecture(90)
    assert having == [2**i for i in range(6, longest.bit_length())]


def test_another_length_is_refused(emulator: Device) -> None:
    given = sample("", 1, 1, 96)
    with pytest.raises(AssertionError):
        spectral_conv(
            emulator, contract.detached(given.make(torch.float32, "cpu")), given.options, torch.randn(1, 1, 1)
        )
    emulator.report()
    emulator.free_all()


@pytest.mark.parametrize("name", ["shared", "per-sample", "strided", "batches-in-chunks"])
def test_the_order_of_threads_does_not_matter(emulator: Device, name: str) -> None:
    tensors = named(name).make(torch.float32, "cpu")
    emulator.schedule("forward")
    first = results(emulator, named(name), tensors)
    for schedule in ("reverse", "random:1", "warp:3"):
        emulator.schedule(schedule)
        contract.assert_same_bits(results(emulator, named(name), tensors), first)
    emulator.schedule("forward")


@pytest.mark.parametrize(
    "name", ["shared", "per-sample", "real-shared", "real-per-sample", "plain", "strided"]
)
def test_it_has_no_race(race_detector: Device, name: str) -> None:
    race_detector.schedule("random:1")
    check(race_detector, named(name), torch.float32)
    race_detector.schedule("forward")


@pytest.mark.parametrize("name", ["shared", "per-sample", "real-per-sample"])
def test_each_gradient_alone(emulator: Device, race_detector: Device, name: str) -> None:
    """What is not asked for changes nothing in what is; and nothing is read that was not made."""
    tensors = named(name).make(torch.float32, "cpu")
    everything = results(emulator, named(name), tensors)
    for device in (emulator, race_detector):
        device.schedule("forward")
        for i, argument in enumerate(tensors, 1):
            found = results(device, named(name), tensors, wanted=[argument])
            assert all(gradient.isnan().all() for j, gradient in enumerate(found) if j not in (0, i))
            if device is emulator:
                contract.assert_same_bits([found[i]], [everything[i]])
    nothing = results(emulator, named(name), tensors, wanted=[])
    contract.assert_same_bits(nothing[:1], everything[:1])


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
