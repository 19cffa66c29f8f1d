"""The N-body example of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from equiconv import Graph
from equiconv.__main__ import main
from equiconv.demo import contest
from equiconv.demo.nbody import simulate, train
from equiconv.demo.ponita import CONTESTANTS

TINY = ["--channels", "8", "--functions", "8", "--orientations", "4", "--layers", "1", "--threads", "1"]


def test_simulation_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trajectories against the sum over particles that the specification writes."""
    monkeypatch.setattr(simulate, "FROM", 1)
    charges = torch.tensor([[1.0, -1, 1, 1, -1], [1, 1, 1, -1, -1]], dtype=torch.float64)
    x, v = torch.randn(2, 2, 5, 3, dtype=torch.float64)
    x[0, 1] = x[0, 0] + 1e-3  # forces beyond the strongest
    data = simulate.simulate(charges, x, v, frames=2)

    def force(q: Tensor, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for i in range(5):
            for j in set(range(5)) - {i}:
                apart = x[i] - x[j]
                total[i] += q[i] * q[j] * apart / apart.norm() ** 3
        return total.clamp(-100, 100)

    for i in range(2):
        position, velocity = x[i], v[i] + 1e-3 * force(charges[i], x[i])
        frames = []
        for step in range(1, 301):
            position = position + 1e-3 * velocity
            if step % 100 == 0:
                frames.append((position, velocity))
            velocity = velocity + 1e-3 * force(charges[i], position)
        torch.testing.assert_close(data.positions[i], frames[1][0].float(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(data.velocities[i], frames[1][1].float(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(data.targets[i], frames[2][0].float(), rtol=1e-5, atol=1e-5)


def test_starts_are_as_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "DRAWN", (30, 10))
    monkeypatch.setattr(simulate, "USED", (20, 10))
    charges, positions, velocities = simulate.starts(1)
    assert charges.shape == (30, 5)
    assert positions.shape == velocities.shape == (30, 5, 3)
    assert set(charges.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(velocities.norm(dim=-1), torch.full((30, 5), 0.5, dtype=torch.float64))
    assert positions.abs().max() <= simulate.BOX
    monkeypatch.setattr(simulate, "USED", (30, 10))
    assert torch.equal(simulate.starts(1)[1][:20], positions[:20])


def some_data(count: int) -> simulate.Trajectories:
    x, v = torch.randn(2, count, 5, 3)
    return simulate.Trajectories(torch.randn(count, 5, 1).sign(), x, v, x + v)


def test_contestants_start_as_the_same_function() -> None:
    settings = train.Settings(seconds=1, channels=8, functions=8, orientations=4, layers=2)
    data, graph = some_data(3), Graph.complete([5] * 3)
    plain, ours = (train.predict(train.make(name, settings).eval(), data, graph) for name in CONTESTANTS)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_rotations_keep_the_task() -> None:
    data = some_data(4)
    moved = train.turned(data, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.targets - moved.positions, moved.velocities)
    torch.testing.assert_close(
        torch.cdist(moved.positions, moved.positions), torch.cdist(*[data.positions] * 2)
    )
    assert not torch.allclose(moved.positions, data.positions)


def test_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On data that are no simulation's, so that none has to be waited for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = some_data(sum(simulate.USED))
    (tmp_path / "equiconv").mkdir()
    torch.save(list(made.tensors), tmp_path / "equiconv" / f"nbody-v{simulate.VERSION}-43.pt")
    assert main(["demo", "nbody", "--seconds", "2", *TINY, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "In short: test error" in printed
    document = json.loads((tmp_path / "out" / "nbody.json").read_text())
    assert set(document["runs"]) == set(CONTESTANTS)
    for measurements in document["runs"].values():
        assert measurements[-1]["steps"] >= 1
        assert measurements[-1]["test"] > 0
    assert (tmp_path / "out" / "nbody.png").read_bytes().startswith(b"\x89PNG")


def test_the_test_error_is_that_of_the_best_validation() -> None:
    validation, test = [3.0, 1.0, 2.0], [0.5, 0.9, 0.1]
    measurements = [
        {"validation": v, "test": t, "seconds": 1.0, "steps": 1}
        for v, t in zip(validation, test, strict=True)
    ]
    assert contest.best_so_far(measurements) == [0.5, 0.9, 0.9]


def test_options_of_other_examples_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "nbody", "--blocks", "2"]) == 2
    assert "--blocks is not an option of nbody." in capsys.readouterr().err
