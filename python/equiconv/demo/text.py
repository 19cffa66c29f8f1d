"""Real text that is on every machine: the sources of Python's standard library, as bytes of ASCII."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

SYMBOLS = 128
LIMIT = 12_000_000  # bytes
HELD_OUT = 16  # every sixteenth file is for validation
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data", "__pycache__"}


class NoText(Exception):
    """The message is a sentence for the user."""


def load() -> tuple[Tensor, Tensor]:
    """Text to train on and text to validate on, each (bytes,) of uint8; the same on every call."""
    root = Path(sysconfig.get_path("stdlib"))
    parts = bytearray(), bytearray()
    for index, path in enumerate(sources(root)):
        content = path.read_bytes()
        if content.isascii():
            parts[index % HELD_OUT == 0].extend(content)
        if len(parts[0]) > LIMIT:
            break
    if min(map(len, parts)) < 100_000:
        raise NoText(f"The demo trains on the sources of Python's standard library, but {root} has too few.")
    train, validation = (torch.frombuffer(part, dtype=torch.uint8).clone() for part in parts)
    return train, validation


def sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED.intersection(path.relative_to(root).parts):
            yield path


def batch(text: Tensor, size: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bytes and the bytes that follow them, both (size, length), from random places."""
    starts = torch.randint(len(text) - length - 1, (size, 1), generator=generator)
    window = text[starts + torch.arange(length + 1)].long()
    return window[:, :-1], window[:, 1:]


def unigram_entropy(text: Tensor) -> float:
    """Bits per byte of a guess that knows how frequent each byte is, and nothing else."""
    counts = torch.bincount(text.int(), minlength=SYMBOLS).double()
    p = counts[counts > 0] / len(text)
    return -(p * p.log()).sum().item() / math.log(2)
