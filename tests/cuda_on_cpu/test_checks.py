"""What ops are checked with: none is left out, and one without lists has its contract's samples."""

from __future__ import annotations

import importlib
import importlib.util

import contract
import pytest

from equiconv.bench import MODELS

from . import build, checks
from .checks import Sampled
from .device import Device


@pytest.mark.parametrize("op", checks.OPS)
def test_nothing_of_an_op_is_missing(op: str) -> None:
    """Of CONTRIBUTING's list, what can be left out in silence."""
    assert (build.HERE / "launchers" / f"{op}.cpp").exists()
    contracts = importlib.import_module(f"test_{op}").TestContract.op, *_of_its_own(op)
    assert any(contract.on_emulator is not None for contract in contracts)
    assert op in MODELS
    assert checks.of(op).calls
    assert checks.of(op).accesses


def _of_its_own(op: str) -> list[contract.Op]:
    """The contract of kernels that take other samples than the op."""
    name = f"test_cuda_{op}"
    kernels = importlib.import_module(name) if importlib.util.find_spec(name) else None
    return [kernels.TestKernels.op] if hasattr(kernels, "TestKernels") else []


@pytest.mark.parametrize("dtype_name", ["float32", "bfloat16"])
def test_a_sample_is_a_call(emulator: Device, dtype_name: str) -> None:
    call = Sampled("fft_conv", "causal", dtype_name)
    emulator.schedule("forward")
    results = call.run(emulator)
    assert set(results) == {"y", "grad_x", "grad_filter", "grad_pre_gate", "grad_post_gate", "grad_skip"}
    assert call.wrong(results, call.expected()) == []
    results["grad_skip"][0] += 0.5
    assert any("grad_skip" in name or "skip" in name for name in call.wrong(results, call.expected()))


def test_an_op_without_lists_has_its_contracts_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = checks.of("fft_conv")
    names = {str(call) for call, architecture in found.calls if architecture == 90}
    assert {"causal-float32", "causal-float16", "long-float64", "long-bfloat16"} <= names
    assert not any("no-batch" in name for name in names)
    assert {str(call).rpartition("-")[2] for call in found.accesses} == {"float32", "bfloat16"}
    assert found.allowances == found.mutations == found.large == []
