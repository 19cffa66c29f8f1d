"""Time against length, as in the Orchid paper: the mixer, attention, and a convolution with a static filter.

    python -m equiconv.bench.orchid_runtime [--longest 128k] [--out FOLDER]

Forward, and forward and backward, of (1, L, 64) for L from 128; all take their turns at each length. A curve
ends where a run would take longer than `--limit` seconds. Leaves runtime.json and runtime.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import equiconv

from . import harness
from .cli import positive

CHANNELS, HEADS = 64, 4
NAMES = {
    "type-II": "Orchid mixer, Type II",
    "type-I": "Orchid mixer, Type I",
    "static": "static long convolution, same mixer",
    "attention": "attention (scaled_dot_product_attention)",
}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_linear = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.out_linear = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.in_linear(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.out_linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


def mixers(length: int) -> dict[str, nn.Module]:
    return {
        "type-II": equiconv.nn.Orchid(CHANNELS, length, conditioning="II"),
        "type-I": equiconv.nn.Orchid(CHANNELS, length, conditioning="I"),
        "static": equiconv.nn.Orchid(CHANNELS, length, conditioning=None),
        "attention": Attention(),
    }


def step(mixer: nn.Module, x: Tensor, direction: str) -> Callable[[], object]:
    if direction == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return mixer(x)  # type: ignore[no-any-return]

        return forward
    leaf = x.clone().requires_grad_()
    leaves = (leaf, *mixer.parameters())
    return lambda: torch.autograd.grad(mixer(leaf), leaves, x)


def measure(longest: int, seconds: float, limit: float) -> dict[str, dict[str, dict[int, float]]]:
    """Seconds by direction, mixer and length."""
    times: dict[str, dict[str, dict[int, float]]] = {d: {n: {} for n in NAMES} for d in harness.DIRECTIONS}
    length = 128
    while length <= longest:
        x = torch.randn(1, length, CHANNELS)
        for direction, found in times.items():
            # Attention takes four times as long at twice the length.
            steps = {
                name: step(mixer, x, direction)
                for name, mixer in mixers(length).items()
                if length == 128 or found[name].get(length // 2, limit) < limit / 4
            }
            timings = harness.time_in_turns(steps, seconds=seconds, rounds=(3, 50))
            for name, timing in timings.items():
                found[name][length] = timing.median
            shown = ", ".join(f"{name} {found[name][length] * 1e3:.3g} ms" for name in steps)
            print(f"L = {harness.size(length)}, {direction}: {shown}", flush=True)
        length *= 2
    return times


def plot(times: dict[str, dict[str, dict[int, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, (direction, found) in zip(figure.subplots(1, 2, sharey=True), times.items(), strict=True):
        for name, curve in found.items():
            axes.loglog(list(curve), [1e3 * time for time in curve.values()], marker="o", label=NAMES[name])
        axes.set_title("forward" if direction == "forward" else "forward and backward")
        axes.set_xlabel("length L")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(f"milliseconds, (1, L, {CHANNELS})")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of mixers against length.")
    parser.add_argument("--longest", type=positive, default=2**17)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each length and direction")
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path("equiconv-bench"))
    options = parser.parse_args()
    times = measure(options.longest, options.seconds, options.limit)
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"machine": harness.machine("cpu"), "channels": CHANNELS, "seconds": times}
    (options.out / "runtime.json").write_text(json.dumps(document, indent=2) + "\n")
    plot(times, options.out / "runtime.png")


if __name__ == "__main__":
    main()
