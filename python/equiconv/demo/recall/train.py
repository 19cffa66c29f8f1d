"""One contestant with one seed.

    python -m equiconv.demo.recall.train type-II '{"steps": 500, ...}'

prints one JSON object a line: a measurement, again and again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..sequence import MIXERS, blocks, parameters
from ..sequence import Settings as Common
from ..sequence import train as train_model

CONTESTANTS = [*MIXERS]


@dataclass(frozen=True, kw_only=True)
class Settings(Common):
    steps: int = 1800
    batch: int = 64
    length: int = 32
    vocabulary: int = 10
    learning_rate: float = 2e-3
    tested: int = 2000  # sequences


def batch(size: int, length: int, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences (size, length) and what comes next, (size,).

    The first half of the vocabulary are keys, the second values; each sequence has a random value for every
    key. It is random keys, each followed by its value; then a sign that the question comes, twice where the
    length is odd; then one of these keys. Its value is the answer.
    """
    keys, pairs = vocabulary // 2, (length - 2) // 2
    value_of = torch.randint(vocabulary - keys, (size, keys), generator=generator) + keys
    shown = torch.randint(keys, (size, pairs), generator=generator)
    sequence = torch.full((size, length), vocabulary)
    sequence[:, : 2 * pairs : 2] = shown
    sequence[:, 1 : 2 * pairs : 2] = value_of.gather(1, shown)
    asked = shown.gather(1, torch.randint(pairs, (size, 1), generator=generator))
    sequence[:, -1:] = asked
    return sequence, value_of.gather(1, asked)[:, 0]


class Model(nn.Module):
    """Symbols in, the symbol after the last out."""

    def __init__(self, contestant: str, settings: Settings) -> None:
        super().__init__()
        s = settings
        self.embedding = nn.Embedding(s.vocabulary + 1, s.channels)
        # Convolutions know how far symbols are apart; attention has to be told.
        self.places = (
            nn.Parameter(0.02 * torch.randn(s.length, s.channels)) if contestant == "attention" else None
        )
        self.blocks = blocks(contestant, s.channels, s.length, s.layers, s.heads, 2 * s.channels)
        self.norm = nn.LayerNorm(s.channels)
        self.head = nn.Linear(s.channels, s.vocabulary + 1)

    def forward(self, sequence: Tensor) -> Tensor:
        """sequence: (B, L). Returns (B, vocabulary + 1)."""
        x = self.embedding(sequence)
        x = self.blocks(x if self.places is None else x + self.places)
        y: Tensor = self.head(self.norm(x[:, -1]))
        return y


def train(contestant: str, settings: Settings) -> Iterator[dict[str, float]]:
    s = settings
    torch.manual_seed(s.seed)
    model = Model(contestant, s).to(s.device)
    fresh = torch.Generator().manual_seed(s.seed)
    tested, answers = (
        t.to(s.device)
        for t in batch(s.tested, s.length, s.vocabulary, torch.Generator().manual_seed(2**31 - 1))
    )

    def loss() -> Tensor:
        sequence, answer = batch(s.batch, s.length, s.vocabulary, fresh)
        return F.cross_entropy(model(sequence.to(s.device)), answer.to(s.device))

    def measure() -> dict[str, float]:
        parts = zip(tested.split(250), answers.split(250), strict=True)  # type: ignore[no-untyped-call]
        right = [(model(some).argmax(-1) == theirs).sum().item() for some, theirs in parts]
        return {"accuracy": sum(right) / s.tested, "parameters": parameters(model)}

    yield from train_model(model, loss, measure, s)


def main(contestant: str, text: str) -> None:
    settings = Settings(**json.loads(text))
    torch.set_num_threads(settings.threads)
    for measurement in train(contestant, settings):
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
