"""Spatial gating, the mixer of gMLP and MAXIM, on `equiconv.gate`: learns to repeat a sequence backwards.

    python examples/spatial_gating.py

Half of the channels are mixed along positions by a learned matrix and gate the other half,

    y = u ⊙ (W v + b)        W (L, L), b (L,): a bias for each position, so the gate's channels are positions

in one pass over memory, with dim=-2. Everything else in the model acts on each position alone, so what is
learned here has gone through the gate.

Liu et al., Pay Attention to MLPs (2021, arXiv:2105.08050); Tu et al., MAXIM (2022, arXiv:2201.02973).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import equiconv
from equiconv.nn import GatedLinearUnit


class SpatialGating(nn.Module):
    """(B, L, 2E) to (B, L, E). W begins small and b at 1, so that at first every u passes."""

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.weight = nn.Parameter(torch.randn(length, length) * 0.1 / length**0.5)
        self.bias = nn.Parameter(torch.ones(length))

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, -1)
        return equiconv.gate(
            u, self.weight @ self.norm(v), gate_bias=self.bias, activation="identity", dim=-2
        )


class Block(nn.Module):
    """gMLP's block, with a GEGLU in the place of its first projection."""

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.expand = GatedLinearUnit(features, 4 * features, "gelu")
        self.gate = SpatialGating(length, 2 * features)
        self.contract = nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.contract(self.gate(self.expand(self.norm(x))))
        return out


class Reverser(nn.Module):
    def __init__(self, symbols: int, length: int, features: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, features)
        self.blocks = nn.Sequential(*(Block(length, features) for _ in range(blocks)))
        self.head = nn.Linear(features, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.embedding(tokens)))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--symbols", type=int, default=8)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = Reverser(options.symbols, options.length, features=32, blocks=2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(options.steps):
        tokens = torch.randint(options.symbols, (64, options.length))
        logits = model(tokens)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flip(1).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in (0, options.steps - 1):
            print(f"step {step}: loss {loss.item():.4f}")
    right = (logits.argmax(-1) == tokens.flip(1)).float().mean().item()
    print(f"symbols in the right place: {100 * right:.1f} %")


if __name__ == "__main__":
    main()
