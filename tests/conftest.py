from __future__ import annotations

from collections.abc import Iterator, Sequence

import hypothesis
import pytest
import torch
from cuda_on_cpu import build
from cuda_on_cpu.device import Device

pytest.register_assert_rewrite("contract")

# The same examples on every run: a failure in CI is a failure at home. The contract's classes share their
# methods, and each draws its own samples.
hypothesis.settings.register_profile(
    "equiconv",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    # By name: older releases have not got it.
    suppress_health_check=[c for c in hypothesis.HealthCheck if c.name == "differing_executors"],
)
hypothesis.settings.load_profile("equiconv")

import contract  # noqa: E402  with asserts that explain themselves, and the settings above


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What the arguments of a contract's tests stand for."""
    op: contract.Op | None = getattr(metafunc.cls, "op", None)
    of_module: contract.Op | None = getattr(getattr(metafunc.module, "TestContract", None), "op", None)
    devices = [
        pytest.param(device, marks=[pytest.mark.cuda] if device == "cuda" else [])
        for device in contract.DEVICES
        if of_module is None or device in of_module.devices
    ]
    meaning: dict[str, Sequence[object]] = {"device": devices, "dtype": contract.DTYPES}
    if op is not None:
        meaning |= {"sample": op.samples, "small": op.small, "tiny": op.tiny}
        meaning |= {"refusal": op.refusals, "capability": op.capabilities, "group": op.groups}
        if op.on_emulator is None and {"emulator", "race_detector"} & set(metafunc.fixturenames):
            meaning |= {"sample": [], "small": []}
    own = {
        name.strip()
        for mark in metafunc.definition.iter_markers("parametrize")
        for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
    }
    for name in metafunc.fixturenames:
        if name in meaning and name not in own:
            metafunc.parametrize(name, meaning[name], ids=lambda value: str(value).removeprefix("torch."))


def _emulator(kind: str) -> Device:
    try:
        return Device(build.library(kind), kind)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def emulator() -> Device:
    """The CUDA kernels on a CPU."""
    return _emulator("fast")


@pytest.fixture(scope="session")
def race_detector() -> Device:
    return _emulator("race")


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """One seed; and few threads, because tests run beside each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, 2))
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
