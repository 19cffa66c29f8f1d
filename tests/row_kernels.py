"""What the CUDA kernels of one pass over a row in shared memory promise alike, run on the CPU by
tests/cuda_on_cpu at lengths that have them. A test file lists samples, and inherits the rest:

    class TestKernels(RowKernels):
        op = dataclasses.replace(…, samples=…, on_emulator=…)
        …
"""

from __future__ import annotations

from typing import Any, ClassVar

import contract
import pytest
import torch
from contract import Sample
from cuda_on_cpu.device import Device
from torch import Tensor


class RowKernels:
    """longest: a sample of float32. another: of a length that has no kernels. ordered, raced, alone: names of
    samples, for the tests below."""

    op: ClassVar[contract.Op]
    longest: ClassVar[Sample]
    another: ClassVar[Sample]
    ordered: ClassVar[tuple[str, ...]]
    raced: ClassVar[tuple[str, ...]]
    alone: ClassVar[tuple[str, ...]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for names in {"ordered", "raced", "alone"} & set(metafunc.fixturenames):
            metafunc.parametrize(names, [self.named(name) for name in getattr(self, names)], ids=str)

    @classmethod
    def named(cls, name: str) -> Sample:
        return next(sample for sample in cls.op.samples if sample.name == name)

    @classmethod
    def results(
        cls, device: Device, sample: Sample, tensors: dict[str, Tensor], **wanted: Any
    ) -> list[Tensor]:
        assert cls.op.on_emulator is not None
        device.report()
        grad_out = contract.random_like(tensors["x"])
        found = cls.op.on_emulator(device, contract.detached(tensors), sample.options, grad_out, **wanted)
        assert device.report() == ""
        return found

    def check(self, device: Device, sample: Sample, dtype: torch.dtype) -> None:
        tensors = sample.make(dtype, "cpu")
        contract.check_against_reference(self.op, sample, tensors, self.results(device, sample, tensors))

    def test_values(self, sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
        """The result and all gradients, measured against the reference in float64."""
        self.check(emulator, sample, dtype)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    @pytest.mark.parametrize("sm", [80, 90])
    def test_the_longest_row(self, emulator: Device, sm: int, dtype: torch.dtype) -> None:
        emulator.schedule("forward")
        emulator.architecture(sm)
        try:
            self.check(emulator, self.longest, dtype)
        finally:
            emulator.architecture(90)

    @pytest.mark.parametrize(
        ("stored", "sm", "longest"), [("float32", 80, 8192), ("bfloat16", 90, 8192), ("float32", 86, 4096),
                                      ("float64", 90, 4096), ("float64", 80, 4096), ("float64", 86, 2048)]
    )  # fmt: skip
    def test_which_lengths_have_kernels(self, emulator: Device, stored: str, sm: int, longest: int) -> None:
        emulator.architecture(sm)
        try:
            name = self.op.function.__name__
            having = [length for length in range(1, 20000) if emulator.fuses(name, length, stored)]
        finally:
            emulator.architecture(90)
        assert having == [2**i for i in range(6, longest.bit_length())]

    def test_another_length_is_refused(self, emulator: Device) -> None:
        with pytest.raises(AssertionError):
            self.results(emulator, self.another, self.another.make(torch.float32, "cpu"))
        emulator.report()
        emulator.free_all()

    def test_the_order_of_threads_does_not_matter(self, emulator: Device, ordered: Sample) -> None:
        tensors = ordered.make(torch.float32, "cpu")
        emulator.schedule("forward")
        first = self.results(emulator, ordered, tensors)
        for schedule in ("reverse", "random:1", "warp:3"):
            emulator.schedule(schedule)
            contract.assert_same_bits(self.results(emulator, ordered, tensors), first)
        emulator.schedule("forward")

    def test_it_has_no_race(self, race_detector: Device, raced: Sample) -> None:
        race_detector.schedule("random:1")
        self.check(race_detector, raced, torch.float32)
        race_detector.schedule("forward")

    def test_each_gradient_alone(self, emulator: Device, race_detector: Device, alone: Sample) -> None:
        """What is not asked for changes nothing in what is; and nothing is read that was not made."""
        tensors = alone.make(torch.float32, "cpu")
        everything = self.results(emulator, alone, tensors)
        for device in (emulator, race_detector):
            device.schedule("forward")
            for i, argument in enumerate(tensors, 1):
                found = self.results(device, alone, tensors, wanted=[argument])
                assert all(gradient.isnan().all() for j, gradient in enumerate(found) if j not in (0, i))
                if device is emulator:
                    contract.assert_same_bits([found[i]], [everything[i]])
        nothing = self.results(emulator, alone, tensors, wanted=[])
        contract.assert_same_bits(nothing[:1], everything[:1])
