"""Run the contestants one after the other, and judge whether they learned the same."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from . import process
from .train import Settings

# In bits per byte. Rounding makes the first losses differ in the last digits; training then amplifies
# the difference, as it does that between two builds of PyTorch.
FIRST_STEP = 1e-5
FIRST_STEPS = 1e-3  # over the first 10 steps
AT_THE_END = 0.15  # between means over the last steps that both made


@dataclass
class Run:
    """What one contestant did."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    validation_loss: float = float("nan")
    memory: int | None = None
    memory_before: int | None = None
    unigram: float = float("nan")
    sample: str = ""

    @property
    def steps_per_second(self) -> float:
        """Without the first step, which pays for what is set up once."""
        if len(self.seconds) < 2:
            return 1 / self.seconds[0]
        return (len(self.seconds) - 1) / (self.seconds[-1] - self.seconds[0])

    def loss_around(self, step: int, width: int = 10) -> float:
        """The mean of the `width` losses up to a step; single losses depend on their batch."""
        return statistics.fmean(self.losses[max(0, step + 1 - width) : step + 1])


Runs = dict[str, Run]


def run(contestant: str, settings: Settings, on_step: Callable[[Run], None]) -> Run:
    """Train a contestant in its own process; `on_step` sees the run as it grows."""
    result = Run()
    for record in process.records(f"{__package__}.train", contestant, settings):
        if "loss" in record:
            result.losses.append(record["loss"])
            result.seconds.append(record["seconds"])
            on_step(result)
        else:
            for name, value in record.items():
                setattr(result, name, value)
    return result


@dataclass(frozen=True)
class Agreement:
    """How far two runs are apart at equal steps, in bits per byte."""

    first_step: float
    first_steps: float
    at_the_end: float
    steps: int

    @property
    def holds(self) -> bool:
        return (
            self.first_step <= FIRST_STEP
            and self.first_steps <= FIRST_STEPS
            and self.at_the_end <= AT_THE_END
        )


def agreement(one: Run, other: Run) -> Agreement:
    gaps = [abs(a - b) for a, b in zip(one.losses, other.losses, strict=False)]
    last = len(gaps) - 1
    return Agreement(
        first_step=gaps[0],
        first_steps=max(gaps[:10]),
        at_the_end=abs(one.loss_around(last) - other.loss_around(last)),
        steps=len(gaps),
    )


def document(runs: Runs, settings: Settings) -> dict[str, Any]:
    """Everything, for JSON."""
    agreed = agreement(*runs.values())
    return {
        "settings": asdict(settings),
        "runs": {name: asdict(run) for name, run in runs.items()},
        "agreement": {**asdict(agreed), "holds": agreed.holds},
    }
