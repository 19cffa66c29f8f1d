"""Small models of blocks that differ in how positions are mixed, and their training."""

from __future__ import annotations

import concurrent.futures
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn import OrchidBlock
from . import process

# The options of OrchidBlock that make a contestant; None: attention.
MIXERS: dict[str, dict[str, Any] | None] = {
    "type-II": {"conditioning": "II"},
    "type-I": {"conditioning": "I"},
    "static": {"conditioning": None},
    "attention": None,
}
LABELS = {
    "type-II": "Orchid, Type II",
    "type-I": "Orchid, Type I",
    "static": "static filter",
    "attention": "attention",
}
COLOURS = {"type-II": "tab:blue", "type-I": "tab:cyan", "static": "tab:gray", "attention": "tab:orange"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """steps: of training, of one run. threads: runs at a time, a thread each."""

    steps: int
    seed: int = 0
    seeds: int = 3
    threads: int = 2
    batch: int
    channels: int = 64
    layers: int = 2
    heads: int = 4
    learning_rate: float
    warm_up: int = 50  # steps
    measurements: int = 20
    device: str = "cpu"


class AttentionBlock(nn.Module):
    """As OrchidBlock, with attention of all positions to all."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixer_norm = nn.LayerNorm(channels)
        self.in_linear = nn.Linear(channels, 3 * channels)
        self.out_linear = nn.Linear(channels, channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = mlp(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, D)."""
        z = self.in_linear(self.mixer_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = z.permute(2, 0, 3, 1, 4)
        x = x + self.out_linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.mlp_norm(x))
        return y


def mlp(channels: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


def blocks(mixer: str, channels: int, length: int, layers: int, heads: int, hidden: int) -> nn.Sequential:
    options = MIXERS[mixer]
    # Filters of so few taps need no larger network.
    small = {"order": 32, "emb_dim": 17}
    return nn.Sequential(
        *(
            AttentionBlock(channels, heads, hidden)
            if options is None
            else OrchidBlock(channels, length, mlp=mlp(channels, hidden), **options, **small)
            for _ in range(layers)
        )
    )


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def train(
    model: nn.Module,
    loss: Callable[[], Tensor],
    measure: Callable[[], dict[str, float]],
    settings: Settings,
) -> Iterator[dict[str, float]]:
    """Yield measurements: steps, seconds of training so far, mean loss, and what `measure` finds.

    The rate rises for the first steps and falls as a cosine. The same seed makes the same steps.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    seconds, losses = 0.0, []
    measured = {settings.steps * (i + 1) // settings.measurements for i in range(settings.measurements)}
    for step in range(settings.steps):
        start = time.perf_counter()
        falling = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * falling * min((step + 1) / settings.warm_up, 1)
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.detach())
        if settings.device != "cpu":
            torch.accelerator.synchronize()
        seconds += time.perf_counter() - start
        if step + 1 in measured:
            model.eval()
            with torch.no_grad():
                found = measure()
            model.train()
            yield {"steps": step + 1, "seconds": seconds, "loss": torch.stack(losses).mean().item(), **found}
            losses.clear()


Measurements = list[dict[str, float]]
Runs = dict[str, list[Measurements]]
"""Of each contestant, the measurements of each seed."""


def run_all(
    module: str,
    contestants: list[str],
    settings: Settings,
    show: Callable[[str, int, dict[str, float]], None],
) -> Runs:
    """Every contestant with every seed, in processes of one thread, as many at a time as `threads`."""
    runs: Runs = {name: [[] for _ in range(settings.seeds)] for name in contestants}

    def one(name: str, i: int) -> None:
        for record in process.records(module, name, replace(settings, seed=settings.seed + i, threads=1)):
            runs[name][i].append(record)
            show(name, i, record)

    # Seeds are outermost: what is first to end is one of each.
    with concurrent.futures.ThreadPoolExecutor(settings.threads) as pool:
        tasks = [pool.submit(one, name, i) for i in range(settings.seeds) for name in contestants]
        try:
            for task in concurrent.futures.as_completed(tasks):
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return runs


def mean_accuracy(runs: Mapping[str, list[Measurements]], name: str) -> float:
    """At the end, over the seeds."""
    last = [measurements[-1]["accuracy"] for measurements in runs[name]]
    return sum(last) / len(last)
