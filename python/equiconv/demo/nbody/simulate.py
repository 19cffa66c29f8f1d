"""The charged particles of the N-body benchmark, all trajectories at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import cache

PARTICLES = 5
TIME_STEP = 1e-3
FRAME = 100  # steps between two frames
FROM, TO = 30, 40  # the frames that are given and asked for: one unit of time apart
STRONGEST = 100.0  # force, in each component
BOX = 5.0
DRAWN = (10_000, 2_000, 2_000)  # by the published generator, for training, validation and test
USED = (3_000, 2_000, 2_000)
AT_ONCE = 1000  # trajectories, so that they stay in a cache
PARTS = ("training", "validation", "test")
VERSION = 1  # of the cached files; to be raised when what is simulated changes


@dataclass(frozen=True)
class Trajectories:
    """charges: (B, 5, 1). positions, velocities, targets: (B, 5, 3), the target one unit of time later."""

    charges: Tensor
    positions: Tensor
    velocities: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.charges)

    def __getitem__(self, which: slice | Tensor) -> Trajectories:
        return Trajectories(*(tensor[which] for tensor in self.tensors))

    def to(self, device: str) -> Trajectories:
        return Trajectories(*(tensor.to(device) for tensor in self.tensors))

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.charges, self.positions, self.velocities, self.targets


def load(seed: int = 43) -> dict[str, Trajectories]:
    """Training, validation and test data, from the user's cache or simulated (some seconds) and put there."""

    def made() -> list[Tensor]:
        drawn = starts(seed)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the steps are too short to share: two threads take longer
        simulated = [
            simulate(*(t[first : first + AT_ONCE] for t in drawn)).tensors
            for first in range(0, sum(USED), AT_ONCE)
        ]
        torch.set_num_threads(threads)
        return [torch.cat(some) for some in zip(*simulated, strict=True)]

    everything = Trajectories(*cache.kept(f"nbody-v{VERSION}-{seed}", made))
    ends = itertools.accumulate(USED)
    return {n: everything[end - size : end] for n, size, end in zip(PARTS, USED, ends, strict=True)}


def starts(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Charges (B, 5), positions and velocities (B, 5, 3) at time 0, in the published generator's order."""
    import numpy as np

    random = np.random.RandomState(seed)
    drawn = []
    frames = 5000 // FRAME - 1
    for count, used in zip(DRAWN, USED, strict=True):
        for sample in range(count):
            charges = random.choice(np.array([-1.0, 0.0, 1.0]), size=(PARTICLES, 1), p=[0.5, 0, 0.5])
            positions = random.randn(3, PARTICLES)
            velocities = random.randn(3, PARTICLES)
            velocities *= 0.5 / np.sqrt((velocities**2).sum(0, keepdims=True))
            random.randn(2, frames, 3, PARTICLES)  # noise, which the published data have none of
            if sample < used:
                drawn.append(np.concatenate((charges.T, positions, velocities)))
    everything = torch.from_numpy(np.stack(drawn)).mT
    q, x, v = everything[..., 0], everything[..., 1:4], everything[..., 4:]
    over, under = x > BOX, x < -BOX  # reflected now, and never again
    x = torch.where(over, 2 * BOX - x, torch.where(under, -2 * BOX - x, x))
    v = torch.where(over, -v.abs(), torch.where(under, v.abs(), v))
    return q, x, v


def simulate(charges: Tensor, positions: Tensor, velocities: Tensor, *, frames: int = TO) -> Trajectories:
    """Frames FROM and `frames` of every trajectory, in float32; simulated in float64.

    charges: (B, 5). positions, velocities: (B, 5, 3), at time 0.
    """
    # The trajectories last, so that every operation runs over long rows: (5, B) and (3, 5, B).
    q, x, v = charges.mT.contiguous(), *(t.permute(2, 1, 0).contiguous() for t in (positions, velocities))
    first, second = torch.triu_indices(PARTICLES, PARTICLES, 1)
    ends = torch.zeros(PARTICLES, len(first), dtype=x.dtype)  # +1 and -1 at the two ends of each pair
    pairs = torch.arange(len(first))
    ends[first, pairs], ends[second, pairs] = 1, -1
    product = q[first] * q[second]

    def force() -> Tensor:
        apart = ends.T @ x  # (3, pairs, B)
        squared = apart.square().sum(0)
        pull = product / (squared * squared.sqrt())
        return (ends @ (apart * pull)).clamp_(-STRONGEST, STRONGEST)

    kept: dict[int, tuple[Tensor, Tensor]] = {}
    v = v + TIME_STEP * force()
    for step in range(1, (frames + 1) * FRAME + 1):
        x = x + TIME_STEP * v
        if step in ((FROM + 1) * FRAME, (frames + 1) * FRAME):
            kept[step // FRAME - 1] = x.permute(2, 1, 0).float(), v.permute(2, 1, 0).float()
        v = v + TIME_STEP * force()
    target, _ = kept[frames]
    return Trajectories(charges[..., None].float(), *kept[FROM], target)
