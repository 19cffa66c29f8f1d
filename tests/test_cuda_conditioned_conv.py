"""The CUDA kernels of conditioned_conv, run on the CPU by tests/cuda_on_cpu, at lengths that have them."""

from __future__ import annotations

import dataclasses
from typing import Any

import contract
import pytest
import test_conditioned_conv
import torch
from contract import Sample
from cuda_on_cpu.conditioned_conv import conditioned_conv, fuses
from cuda_on_cpu.device import Device
from test_conditioned_conv import ALL, SIGNALS, TYPES, WEIGHTS, sample
from torch import Tensor

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
LONGEST = sample("longest", 1, 1, 8192, 3, keyed=True, extras=ALL)  # of float32


class TestKernels:
    op = dataclasses.replace(
        test_conditioned_conv.TestContract.op, samples=SAMPLES, on_emulator=conditioned_conv
    )

    def test_values(self, sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
        """The result and all gradients, measured against the reference in float64."""
        check(emulator, sample, dtype)


def check(device: Device, sample: Sample, dtype: torch.dtype) -> None:
    tensors = sample.make(dtype, "cpu")
    contract.check_against_reference(TestKernels.op, sample, tensors, results(device, sample, tensors))


def results(device: Device, sample: Sample, tensors: dict[str, Tensor], **wanted: Any) -> list[Tensor]:
    device.report()
    grad_out = contract.random_like(tensors["x"])
    found = conditioned_conv(device, contract.detached(tensors), sample.options, grad_out, **wanted)
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
        conditioned_conv(
            emulator, contract.detached(given.make(torch.float32, "cpu")), given.options, torch.randn(1)
        )
    emulator.report()
    emulator.free_all()


@pytest.mark.parametrize("name", ["magnitude", "correlation", "strided", "batches-in-chunks"])
def test_the_order_of_threads_does_not_matter(emulator: Device, name: str) -> None:
    tensors = named(name).make(torch.float32, "cpu")
    emulator.schedule("forward")
    first = results(emulator, named(name), tensors)
    for schedule in ("reverse", "random:1", "warp:3"):
        emulator.schedule(schedule)
        contract.assert_same_bits(results(emulator, named(name), tensors), first)
    emulator.schedule("forward")


@pytest.mark.parametrize(
    "name", ["magnitude", "correlation", "plain-magnitude", "widest-correlation", "strided"]
)
def test_it_has_no_race(race_detector: Device, name: str) -> None:
    race_detector.schedule("random:1")
    check(race_detector, named(name), torch.float32)
    race_detector.schedule("forward")


@pytest.mark.parametrize("name", ["magnitude", "correlation"])
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
