"""A causal byte-level language model made of gated long convolutions, in the manner of Hyena.

Only `convolution` differs between the contestants: it is called as equiconv.fft_conv is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .text import SYMBOLS

Convolution = Callable[..., Tensor]


# How large a filter is before it is trained: y is then about as large as v.
GAIN = 5.0


class Sine(nn.Module):
    """sin(ω x), with a learned frequency ω for each feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.full((width,), 10.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * x)


class ImplicitFilter(nn.Module):
    """A filter (D, L) that a small network computes from the positions of its taps."""

    positions: Tensor
    window: Tensor

    def __init__(self, channels: int, length: int, bands: int = 8, order: int = 32) -> None:
        super().__init__()
        t = torch.linspace(0, 1, length)[:, None]
        angles = 2 * math.pi * torch.arange(length)[:, None] / length * torch.linspace(1e-4, bands - 1, bands)
        self.register_buffer("positions", torch.cat([t, angles.cos(), -angles.sin()], dim=1))
        # Channel d forgets at its own rate: from one that sees two bytes to one that sees all.
        rates = torch.logspace(0, math.log10(4 / length), channels)[:, None]
        decay = torch.exp(-rates * torch.arange(length))
        self.register_buffer("window", GAIN * decay / decay.sum(1, keepdim=True))
        self.network = nn.Sequential(
            nn.Linear(2 * bands + 1, order),
            Sine(order),
            nn.Linear(order, order),
            Sine(order),
            nn.Linear(order, channels, bias=False),
        )

    def forward(self, length: int) -> Tensor:
        filter: Tensor = self.network(self.positions[:length]).T
        return filter * self.window[:, :length]


class LongConvolution(nn.Module):
    """y = x0 ⊙ (filter ∗ (x1 ⊙ v) + skip ⊙ x1 ⊙ v), with x0, x1, v linear in the input."""

    def __init__(self, channels: int, length: int, convolution: Convolution) -> None:
        super().__init__()
        self.convolution = convolution
        self.project = nn.Linear(channels, 3 * channels)
        self.filter = ImplicitFilter(channels, length)
        self.skip = nn.Parameter(torch.randn(channels))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D)
        x0, x1, v = self.project(x).chunk(3, dim=-1)
        y = self.convolution(
            v,
            self.filter(x.shape[1]),
            pre_gate=x1,
            post_gate=x0,
            skip=self.skip,
            mode="causal",
            layout="bld",
        )
        out: Tensor = self.out(y)
        return out


class Block(nn.Module):
    def __init__(self, channels: int, length: int, convolution: Convolution) -> None:
        super().__init__()
        self.mix_positions = nn.Sequential(
            nn.LayerNorm(channels), LongConvolution(channels, length, convolution)
        )
        self.mix_channels = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix_positions(x)
        y: Tensor = x + self.mix_channels(x)
        return y


class LanguageModel(nn.Module):
    def __init__(self, channels: int, blocks: int, length: int, convolution: Convolution) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(SYMBOLS, channels)
        self.blocks = nn.Sequential(*(Block(channels, length, convolution) for _ in range(blocks)))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, SYMBOLS)

    def forward(self, text: Tensor) -> Tensor:
        """text: (B, L) of bytes. Returns the logits of the next byte, (B, L, SYMBOLS)."""
        logits: Tensor = self.head(self.norm(self.blocks(self.embedding(text))))
        return logits

    def loss(self, text: Tensor, following: Tensor) -> Tensor:
        """Cross entropy in bits per byte."""
        return F.cross_entropy(self(text).flatten(0, 1), following.flatten()) / math.log(2)

    @torch.no_grad()
    def write(self, prompt: bytes, count: int, generator: torch.Generator) -> str:
        """Continue a text by `count` bytes, drawn with temperature 0.7."""
        text = torch.tensor(list(prompt))[None]
        for _ in range(count):
            p = (self(text[:, -self.length :])[0, -1] / 0.7).softmax(-1)
            text = torch.cat([text, torch.multinomial(p, 1, generator=generator)[None]], dim=1)
        characters = map(chr, text[0].tolist())
        return "".join(c if c.isprintable() or c == "\n" else "·" for c in characters)
