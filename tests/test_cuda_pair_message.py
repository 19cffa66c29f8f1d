"""The CUDA kernels of pair_message, run on the CPU by tests/cuda_on_cpu: what its contract does not reach."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import build
from cuda_on_cpu.device import Device
from cuda_on_cpu.pair_cases import PAIRS, PIECES, SLABS, PairCase

SCHEDULES = ("reverse", "random:1", "warp:3")

CASES = [
    *PAIRS, *PIECES, SLABS,
    replace(SLABS, shared=True, orientations=2, wanted=("grad_x", "grad_basis")),
    PairCase(3, 3, 20, 2, 8, 1100, "bfloat16", shared=True, wanted=("grad_basis", "grad_weight")),
    replace(SLABS, antipodal=True, orientations=2, channels=1100, wanted=("grad_basis",)),
    PairCase(20, 20, 300, 2, 130, 136, "float16", "float32", antipodal=True, wide=True),
    PairCase(9, 9, 60, 2, 20, 30, tf32=True, strided=True, antipodal=True),
    PairCase(30, 20, 300, 3, 130, 136, "bfloat16"),  # more than one block's columns, and than a team's
    PairCase(20, 30, 200, 2, 70, 200, wanted=("grad_basis", "grad_weight")),
    PairCase(1, 1, 1, 1, 1, 1, "float64"),
    PairCase(40, 900, 60, 2, 4, 8, wide=True, empty=0.9),
]  # fmt: skip


def _device(name: str) -> Device:
    try:
        return Device(build.library(name), name)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def fast() -> Device:
    return _device("fast")


@pytest.fixture(scope="module")
def race() -> Device:
    return _device("race")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_equals_the_definition(fast: Device, case: PairCase) -> None:
    fast.schedule("forward")
    results = case.run(fast)
    assert fast.report() == ""
    assert case.wrong(results, case.expected()) == []


@pytest.mark.parametrize("sm", [80, 86])
def test_less_shared_memory_gives_the_same(fast: Device, sm: int) -> None:
    fast.schedule("forward")
    case = PairCase(9, 9, 50, 2, 250, 130, wanted=("grad_basis", "grad_weight"))
    fast.architecture(sm)
    try:
        assert case.wrong(case.run(fast), case.expected()) == []
    finally:
        fast.architecture(90)
    assert fast.report() == ""


@pytest.mark.parametrize("case", [*PAIRS, PIECES[0]], ids=str)
def test_the_order_of_threads_does_not_matter(fast: Device, case: PairCase) -> None:
    fast.schedule("forward")
    first = case.run(fast)
    for schedule in SCHEDULES:
        fast.schedule(schedule)
        for name, result in case.run(fast).items():
            np.testing.assert_array_equal(result, first[name], err_msg=f"{name}, {schedule}")
    assert fast.report() == ""


@pytest.mark.parametrize("case", [*PAIRS, SLABS], ids=str)
def test_it_has_no_race(race: Device, case: PairCase) -> None:
    race.report()
    race.schedule("random:1")
    results = case.run(race)
    assert race.report() == ""
    assert case.wrong(results, case.expected()) == []


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    try:
        path = build.library("asan")
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    code = (
        "import sys; from pathlib import Path; from cuda_on_cpu.fft_conv_cases import save;"
        "from cuda_on_cpu.device import Device; from cuda_on_cpu.pair_cases import PAIRS;"
        f"save(Path({str(tmp_path / 'results.npz')!r}), Device({str(path)!r}), PAIRS)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, env=build.asan_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = np.load(tmp_path / "results.npz")
    for i, case in enumerate(PAIRS):
        results = {key.partition("/")[2]: saved[key] for key in saved if key.startswith(f"{i}/")}
        assert case.wrong(results, case.expected()) == []


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_small_problems_are_one_launch(race: Device, stored: str) -> None:
    """The sums over 2500 pairs of 500 points in clouds of five, of which a few stand for all here."""
    race.report()
    PairCase(25, 25, 125, 2, 32, 32, stored, wanted=()).run(race)
    kernels = {row.kernel.partition("<")[0] for row in race.memory_table()}
    assert race.report() == ""
    assert kernels == {"aggregate"}


def test_what_is_not_finite_stays_with_its_receivers(fast: Device) -> None:
    case = PairCase(9, 8, 60, 2, 16, 24, wanted=())
    clean = case.run(fast)["out"]
    dirty_case = Dirty(**{name: getattr(case, name) for name in case.__dataclass_fields__})
    dirty = dirty_case.run(fast)["out"]
    senders, receivers = case.graph()
    reached = np.isin(np.arange(8), receivers[senders == 2])
    assert reached.any()
    assert not reached.all()
    assert np.isnan(dirty[reached]).all()
    np.testing.assert_array_equal(dirty[~reached], clean[~reached])


class Dirty(PairCase):
    """Its point 2 is not a number."""

    def arguments(self) -> dict[str, np.ndarray]:
        arguments = super().arguments()
        arguments["x"][2] = np.nan
        return arguments
