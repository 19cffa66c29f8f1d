"""The examples of sequence models: associative recall, and digits pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from equiconv.__main__ import main
from equiconv.demo import sequence
from equiconv.demo.digits import train as digits
from equiconv.demo.recall import train as recall

TINY = ["--channels", "8", "--layers", "1", "--batch", "4", "--seeds", "1", "--threads", "2"]


def test_recall_asks_for_a_value_that_was_there() -> None:
    sequences, answers = recall.batch(50, 32, 10, torch.Generator().manual_seed(0))
    assert sequences.shape == (50, 32)
    for symbols, answer in zip(sequences.tolist(), answers.tolist(), strict=True):
        keys, values = symbols[:30:2], symbols[1:30:2]
        assert set(keys) <= set(range(5))
        assert set(values) <= set(range(5, 10))
        assert symbols[30] == 10
        value_of = dict(zip(keys, values, strict=True))
        assert [value_of[key] for key in keys] == values  # the same every time
        assert value_of[symbols[31]] == answer
    again, _ = recall.batch(50, 32, 10, torch.Generator().manual_seed(1))
    assert not torch.equal(again, sequences)


@pytest.mark.parametrize("contestant", recall.CONTESTANTS)
def test_every_contestant_learns(contestant: str) -> None:
    """Some sequences by heart, in few steps."""
    settings = recall.Settings(channels=16, length=12, vocabulary=4, layers=1)
    torch.manual_seed(0)
    model = recall.Model(contestant, settings)
    some, answers = recall.batch(16, 12, 4, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(model(some), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6  # at the start 1.4


def test_the_transformer_has_as_many_parameters() -> None:
    settings = digits.Settings()
    ours, theirs = (sequence.parameters(digits.make(name, settings)) for name in digits.CONTESTANTS)
    assert abs(ours - theirs) <= 0.01 * ours


def test_the_same_seed_makes_the_same_steps() -> None:
    settings = recall.Settings(steps=7, measurements=3, channels=8, length=12, vocabulary=4, layers=1)
    first, again = ([*recall.train("type-II", settings)] for _ in range(2))
    assert [m["steps"] for m in first] == [2, 4, 7]
    assert [m["loss"] for m in first] == [m["loss"] for m in again]


def test_recall_is_measured_in_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "recall", "--seconds", "4"]) == 2
    assert "--seconds is not an option of recall, which takes --steps." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["recall", "digits"])
def test_end_to_end(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    assert main(["demo", name, "--steps", "30", *TINY, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "In short: accuracy at the end, mean of 1 seeds: Orchid, Type II" in printed
    document = json.loads((tmp_path / f"{name}.json").read_text())
    contestants = recall.CONTESTANTS if name == "recall" else digits.CONTESTANTS
    assert list(document["runs"]) == contestants
    for (last, *_), *_ in ([run[::-1] for run in runs] for runs in document["runs"].values()):
        assert last["steps"] >= 1
        assert 0 <= last["accuracy"] <= 1
        assert last["parameters"] > 0
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_digits_say_where_the_images_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "digits"]) == 2
    assert "scikit-learn, which is not installed: pip install equiconv[demo]" in capsys.readouterr().err
