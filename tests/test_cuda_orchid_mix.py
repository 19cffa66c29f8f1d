"""The CUDA kernels of orchid_mix, run on the CPU by tests/cuda_on_cpu, at lengths that have them."""

from __future__ import annotations

import dataclasses
from typing import Any

import contract
import pytest
import test_orchid_mix
import torch
from contract import Sample
from cuda_on_cpu.device import Device
from cuda_on_cpu.orchid_mix import orchid_mix
from test_orchid_mix import ALL, BIASES, LAYOUT, TYPES, WEIGHTS, sample
from torch import Tensor

SAMPLES = (
    sample("magnitude", 3, 2, 64, (3, 4, 3), 3, extras=ALL),
    sample("correlation", 3, 2, 64, (4, 3, 5), 4, keyed=True, static=5, extras=ALL),
    sample("zeros", 3, 3, 128, (3, 4, 5), 3, keyed=True, padding="zeros", extras=ALL),
    sample("zeros-magnitude", 2, 1, 128, (5, 2, 3), 3, padding="zeros", layout="bdl", extras=BIASES),
    sample("plain-magnitude", 2, 1, 64, (1, 1, 1), 1),
    sample("plain-correlation", 2, 3, 128, (2, 1, 3), 2, keyed=True, layout="bdl", extras=["skip"]),
    sample("widest-magnitude", 1, 2, 64, (16, 16, 16), 16, padding="zeros", extras=ALL),
    sample("widest-correlation", 1, 2, 64, (16, 9, 15), 15, keyed=True, layout="bdl", extras=ALL),
    sample("strided", 2, 3, 256, (3, 4, 3), 5, keyed=True, extras=ALL, strided=True),
    sample("strided-rows", 2, 3, 256, (4, 3, 3), 5, layout="bdl", static=33, extras=ALL, strided=True),
    sample("columns", 2, 40, 256, (3, 3, 3), 3, keyed=True, extras=ALL),
    sample("rows", 2, 33, 128, (3, 3, 3), 3, keyed=True, layout="bdl", extras=ALL),
    sample("long-magnitude", 2, 1, 4096, (3, 3, 3), 5, extras=ALL),
    sample("runs", 600, 2, 64, (2, 3, 2), 2, keyed=True, extras=ALL),
    sample("float32-weights", 2, 8, 256, keyed=True, extras=ALL, float32=frozenset(WEIGHTS)),
)
# Of float32. Of one channel alone the three numbers of a gradient are now and then all small ones.
LONGEST = sample("longest", 1, 2, 8192, keyed=True, extras=ALL)


class TestKernels:
    op = dataclasses.replace(test_orchid_mix.TestContract.op, samples=SAMPLES, on_emulator=orchid_mix)

    def test_values(self, sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
        """The result and all gradients, measured against the reference in float64."""
        check(emulator, sample, dtype)


def check(device: Device, sample: Sample, dtype: torch.dtype) -> None:
    tensors = sample.make(dtype, "cpu")
    contract.check_against_reference(TestKernels.op, sample, tensors, results(device, sample, tensors))


def results(device: Device, sample: Sample, tensors: dict[str, Tensor], **wanted: Any) -> list[Tensor]:
    device.report()
    axis = 1 if sample.options["layout"] == "bdl" else 2
    grad_out = contract.random_like(tensors["z"].chunk(3, axis)[0])
    found = orchid_mix(device, contract.detached(tensors), sample.options, grad_out, **wanted)
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
                                 ("float64", 90, 4096), ("float64", 80, 4096), ("float64", 86, 0)]
)  # fmt: skip
def test_which_lengths_have_kernels(emulator: Device, dtype: str, sm: int, longest: int) -> None:
    """Those that conditioned_conv has kernels for, but where three tiles of float64 do not fit."""
    emulator.architecture(sm)
    try:
        having = [length for length in range(1, 20000) if emulator.fuses("orchid_mix", length, dtype)]
    finally:
        emulator.architecture(90)
    assert having == [2**i for i in range(6, longest.bit_length())]


def test_another_length_is_refused(emulator: Device) -> None:
    given = sample("", 1, 1, 96)
    tensors = contract.detached(given.make(torch.float32, "cpu"))
    with pytest.raises(AssertionError):
        orchid_mix(emulator, tensors, given.options, torch.randn(1, 96, 1))
    emulator.report()
    emulator.free_all()


@pytest.mark.parametrize("name", ["magnitude", "correlation", "strided", "columns", "runs"])
def test_the_order_of_threads_does_not_matter(emulator: Device, name: str) -> None:
    tensors = named(name).make(torch.float32, "cpu")
    emulator.schedule("forward")
    first = results(emulator, named(name), tensors)
    for schedule in ("reverse", "random:1", "warp:3"):
        emulator.schedule(schedule)
        contract.assert_same_bits(results(emulator, named(name), tensors), first)
    emulator.schedule("forward")


@pytest.mark.parametrize(
    "name", ["magnitude", "correlation", "zeros", "plain-magnitude", "widest-correlation", "strided-rows"]
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


@TYPES
@pytest.mark.parametrize("channels", [3, 40])
def test_bits_are_those_of_each_layout(emulator: Device, keyed: bool, channels: int) -> None:
    given = sample("", 2, channels, 256, (3, 4, 2), keyed=keyed, extras=ALL)
    turned = sample("", 2, channels, 256, (3, 4, 2), keyed=keyed, layout="bdl", extras=ALL)
    tensors = contract.detached(given.make(torch.float32, "cpu"))
    grad_out = torch.randn(2, 256, channels)
    first = orchid_mix(emulator, tensors, given.options, grad_out)
    tensors["z"], grad_out = (t.mT.contiguous() for t in (tensors["z"], grad_out))
    second = orchid_mix(emulator, tensors, turned.options, grad_out)
    second[:2] = (t.mT for t in second[:2])
    contract.assert_same_bits(second, first)


@TYPES
@LAYOUT
@pytest.mark.parametrize("third", [0, 1, 2])
def test_nan_stays_in_its_row(emulator: Device, keyed: bool, layout: str, third: int) -> None:
    """In the result, and in the gradient of z."""
    given = sample("", 3, 4, 64, keyed=keyed, layout=layout, extras=ALL)
    tensors = contract.detached(given.make(torch.float32, "cpu"))
    clean = results(emulator, given, tensors)
    tensors["z"] = tensors["z"].clone()
    rows = tensors["z"] if layout == "bdl" else tensors["z"].mT
    rows[1, 4 * third + 2, 5] = float("nan")
    poisoned = results(emulator, given, tensors)
    others = torch.ones(3, 4, dtype=torch.bool)
    others[1, 2] = False
    for a, b, streams in zip(poisoned[:2], clean[:2], (1, 3), strict=True):
        a, b = (t if layout == "bdl" else t.mT for t in (a, b))
        contract.assert_same_bits([a[others.repeat(1, streams)]], [b[others.repeat(1, streams)]])
    assert poisoned[0].isnan().any()
