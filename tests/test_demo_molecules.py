"""The molecules of the demo, and the force field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from equiconv.__main__ import main
from equiconv.demo import ponita
from equiconv.demo.forces import data as frames
from equiconv.demo.forces import dynamics, run
from equiconv.demo.forces import train as forces
from equiconv.demo.molecules import data, train

TINY = ["--channels", "8", "--functions", "8", "--orientations", "4", "--layers", "1", "--threads", "1"]


def test_atomisation_energies_are_the_measured_ones() -> None:
    """In kcal/mol, without vibrations: Ruscic et al., and the tables of the G2 set."""
    from ase.data.g2 import molecule_names

    whole = data.load()
    assert len(whole) == 148 == sum(data.PARTS.values())
    for name, energy in {"CH4": 420.2, "H2O": 232.6, "H2": 109.5, "N2": 228.5, "C6H6": 1367.7}.items():
        assert whole.energies[molecule_names.index(name)] / data.EV == pytest.approx(energy, abs=0.5)


def test_parts_share_no_molecule() -> None:
    whole = data.load()
    parts = data.split(whole, 0)
    assert {name: len(part) for name, part in parts.items()} == data.PARTS
    energies = torch.cat([part.energies for part in parts.values()])
    assert torch.equal(energies.sort().values, whole.energies.sort().values)
    some = whole[torch.tensor([5, 2])]
    assert torch.equal(some.composition, whole.composition[[5, 2]])
    assert torch.equal(some.positions[: int(some.sizes[0])], whole.positions[whole.of_molecule == 5])


def test_contestants_start_as_the_same_function() -> None:
    settings = train.Settings(seconds=1, channels=8, functions=8, orientations=4, layers=2)
    whole = data.load()
    some = whole[torch.arange(5)]
    plain, ours = (
        train.predict(train.make(name, settings, whole.elements.shape[1]).eval(), some)
        for name in ponita.CONTESTANTS
    )
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PARTS", {"training": 6, "validation": 3, "test": 3})
    monkeypatch.setattr(frames, "EVERY", 2)
    monkeypatch.setattr(frames, "WARM_UP", 5)


def test_frames_have_the_forces_of_their_energies(monkeypatch: pytest.MonkeyPatch) -> None:
    few_frames(monkeypatch)
    some = frames.simulate(0)["training"]
    x = some.positions[0].double()
    energy_and_forces = dynamics.true_energy_and_forces()
    energy, forces = energy_and_forces(x)
    assert energy == pytest.approx(some.energies[0].item(), abs=1e-5)
    torch.testing.assert_close(forces.float(), some.forces[0], rtol=1e-4, atol=1e-4)


def test_learned_forces_are_minus_the_derivative_of_the_energy() -> None:
    settings = forces.Settings(seconds=1, channels=8, functions=8, orientations=4, layers=1)
    model = forces.make("equiconv", settings).double().eval()
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    _, force = forces.predict(model, x, training=False)
    step = 1e-5 * torch.randn_like(x)
    ahead, behind = (forces.predict(model, x + s, training=False)[0].item() for s in (step, -step))
    assert ahead - behind == pytest.approx(-2 * (force * step).sum().item(), rel=1e-6)


def test_energy_is_kept_where_forces_are_a_spring() -> None:
    def spring(x: Tensor) -> tuple[float, Tensor]:
        return (0.5 * x.square()).sum().item(), -x

    total = dynamics.move(spring, 200, 0)
    assert len(total) == 200
    assert max(total) - min(total) < 1e-3 * abs(total[0])
    assert run.drift([1.0] * 10 + [2.0] * 10) == pytest.approx(1)


@pytest.mark.parametrize("example", ["molecules", "forces"])
def test_end_to_end(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if example == "forces":
        few_frames(monkeypatch)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        frames.load()  # for the contestants, whose processes know nothing of fewer frames
    steps = ["--steps", "3"] if example == "forces" else []
    assert main(["demo", example, "--seconds", "2", *TINY, *steps, "--out", str(tmp_path / "out")]) == 0
    assert "In short: " in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / f"{example}.json").read_text())
    assert set(document["runs"]) == set(ponita.CONTESTANTS)
    for measurements in document["runs"].values():
        assert measurements[-1]["steps"] >= 1
        assert 0 < measurements[-1]["test"] < 100
    assert (tmp_path / "out" / f"{example}.png").read_bytes().startswith(b"\x89PNG")
