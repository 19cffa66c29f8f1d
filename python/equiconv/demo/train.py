"""One contestant, in a process of its own so that its peak memory is its own.

    python -m equiconv.demo.train torch '{"seed": 0, ...}'

prints one JSON object a line: a step, again and again, and a summary at the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import equiconv

from ..bench.bench_fft_conv import eager
from . import text
from .model import Convolution, LanguageModel

CONVOLUTIONS: dict[str, Convolution] = {"torch": eager, "equiconv": equiconv.fft_conv}

PROMPT = b"def "
WRITTEN = 160  # bytes of generated text


@dataclass(frozen=True, kw_only=True)
class Settings:
    seconds: float
    seed: int = 0
    threads: int = 2
    length: int = 2048
    batch: int = 4
    channels: int = 64
    blocks: int = 4
    learning_rate: float = 3e-3
    warm_up: int = 20  # steps


def train(convolution: Convolution, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield loss and seconds of every step, then a summary. Only `seconds` decides how many steps."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training_text, validation_text = text.load()
    model = LanguageModel(settings.channels, settings.blocks, settings.length, convolution)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=settings.warm_up)
    places = torch.Generator().manual_seed(settings.seed)
    memory_before = peak_memory()

    start = time.perf_counter()
    seconds = 0.0
    while seconds < settings.seconds:
        loss = model.loss(*text.batch(training_text, settings.batch, settings.length, places))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seconds = time.perf_counter() - start
        yield {"loss": loss.item(), "seconds": seconds}

    memory = peak_memory()
    places.manual_seed(settings.seed)
    validation_loss = validate(model, validation_text, settings, places)
    torch.set_num_threads(1)  # a byte at a time is too little work to share
    yield {
        "validation_loss": validation_loss,
        "memory": memory,
        "memory_before": memory_before,
        "unigram": text.unigram_entropy(validation_text),
        "sample": model.write(PROMPT, WRITTEN, places),
    }


@torch.no_grad()
def validate(
    model: LanguageModel, held_out: torch.Tensor, settings: Settings, places: torch.Generator
) -> float:
    batches = [text.batch(held_out, settings.batch, settings.length, places) for _ in range(8)]
    return sum(model.loss(*batch).item() for batch in batches) / len(batches)


def peak_memory() -> int | None:
    """The most bytes this process has held so far, where the system tells: Linux's VmHWM."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(contestant: str, settings: str) -> None:
    for record in train(CONVOLUTIONS[contestant], Settings(**json.loads(settings))):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
