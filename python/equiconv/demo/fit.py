"""The training loop of the examples whose contestants are given equal time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """seconds: training time of one contestant, without the measurements."""

    seconds: float
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    batch: int = 100
    learning_rate: float = 1e-3
    warm_up: int = 100  # steps
    measurements: int = 40


def fit(
    model: nn.Module,
    samples: int,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    measure: Callable[[], dict[str, float]],
    schedule: Schedule,
) -> Iterator[dict[str, float]]:
    """Yield measurements: steps, seconds of training so far, the mean loss, and what `measure` finds.

    Adam; the learning rate rises over the first steps and falls as a cosine over the time there is.
    loss: of the samples with these indices; the generator draws what is random about it.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    random = torch.Generator().manual_seed(schedule.seed)
    seconds, step, due = 0.0, 0, 1
    losses: list[Tensor] = []
    while seconds < schedule.seconds:
        order = torch.randperm(samples, generator=random)
        for which in torch.split(order, schedule.batch):
            start = time.perf_counter()
            rate = 0.5 * (1 + math.cos(math.pi * min(seconds / schedule.seconds, 1)))
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * rate * min((step + 1) / schedule.warm_up, 1)
            lost = loss(which, random)
            optimizer.zero_grad()
            lost.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(lost.detach())
            if schedule.device != "cpu":
                torch.accelerator.synchronize()
            seconds += time.perf_counter() - start
            step += 1
            if seconds >= due * schedule.seconds / schedule.measurements:
                due = int(seconds * schedule.measurements / schedule.seconds) + 1
                model.eval()
                found = measure()
                model.train()
                yield {
                    "steps": step,
                    "seconds": seconds,
                    "training": torch.stack(losses).mean().item(),
                    **found,
                }
                losses.clear()
            if seconds >= schedule.seconds:
                break
