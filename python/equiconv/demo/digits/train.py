"""One contestant with one seed.

    python -m equiconv.demo.digits.train type-II '{"steps": 500, ...}'

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

from ..sequence import Settings as Common
from ..sequence import blocks, parameters
from ..sequence import train as train_model

CONTESTANTS = ["type-II", "attention"]
PIXELS = 64
TESTED = 450  # images


@dataclass(frozen=True, kw_only=True)
class Settings(Common):
    steps: int = 2500
    batch: int = 32
    learning_rate: float = 2e-3


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (n, 64) of 0 … 1 and digits (n,), to train on and to test with; the same split every time."""
    from sklearn.datasets import load_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]

    data = load_digits()
    images = torch.from_numpy(data.data).float() / 16
    digits = torch.from_numpy(data.target).long()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    test, training = order[:TESTED], order[TESTED:]
    return images[training], digits[training], images[test], digits[test]


class Model(nn.Module):
    """Pixels in, one at a position, digits out: blocks, then the mean over positions."""

    def __init__(self, contestant: str, settings: Settings, hidden: int) -> None:
        super().__init__()
        s = settings
        self.embedding = nn.Linear(1, s.channels)
        self.places = nn.Parameter(0.02 * torch.randn(PIXELS, s.channels))
        self.blocks = blocks(contestant, s.channels, PIXELS, s.layers, s.heads, hidden)
        self.norm = nn.LayerNorm(s.channels)
        self.head = nn.Linear(s.channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 64). Returns (B, 10)."""
        x = self.blocks(self.embedding(images[..., None]) + self.places)
        y: Tensor = self.head(self.norm(x).mean(1))
        return y


def make(contestant: str, settings: Settings) -> Model:
    """With about as many parameters as Orchid: a transformer has them in its networks of each position."""
    hidden = 2 * settings.channels
    wanted = parameters(Model("type-II", settings, hidden))
    per_unit = settings.layers * (2 * settings.channels + 1)
    more = (wanted - parameters(Model(contestant, settings, hidden))) / per_unit
    return Model(contestant, settings, hidden + round(more))


def train(contestant: str, settings: Settings) -> Iterator[dict[str, float]]:
    s = settings
    torch.manual_seed(s.seed)
    images, digits, tested, answers = (t.to(s.device) for t in load())
    model = make(contestant, s).to(s.device)
    random = torch.Generator().manual_seed(s.seed)
    steps_of_epoch = -(-len(digits) // s.batch)
    waiting: list[Tensor] = []

    def loss() -> Tensor:
        if not waiting:
            waiting.extend(torch.randperm(len(digits), generator=random).to(s.device).split(s.batch))  # type: ignore[no-untyped-call]
        which = waiting.pop()
        return F.cross_entropy(model(images[which]), digits[which], label_smoothing=0.1)

    def measure() -> dict[str, float]:
        right = (model(tested).argmax(-1) == answers).sum().item()
        return {"accuracy": right / len(answers), "parameters": parameters(model)}

    for m in train_model(model, loss, measure, s):
        yield {**m, "epoch": m["steps"] / steps_of_epoch}


def main(contestant: str, text: str) -> None:
    settings = Settings(**json.loads(text))
    torch.set_num_threads(settings.threads)
    for measurement in train(contestant, settings):
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
