"""``python -m equiconv demo nbody``: both contestants, one after the other, and the picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .. import contest
from ..contest import Runs, best, best_so_far
from ..ponita import CONTESTANTS
from . import simulate
from .train import Settings

PUBLISHED = {"EGNN": 0.0070, "PONITA, 300,000 steps": 0.0043}  # test errors
COLUMNS = {"training": ".4f", "validation": ".4f", "test": ".4f"}


def run(settings: Settings, folder: Path) -> int:
    print(
        f"PONITA ({settings.layers} layers, {settings.channels} channels, {settings.orientations} "
        "orientations) learns where five charged particles will be,\n"
        f"{settings.seconds:g} s with plain PyTorch, then {settings.seconds:g} s with equiconv; same start, "
        "same data. Errors are mean squared ones."
    )
    start = time.perf_counter()
    simulate.load()
    print(f"{sum(simulate.USED)} trajectories are ready ({time.perf_counter() - start:.0f} s).")
    runs = contest.hold("equiconv.demo.nbody.train", CONTESTANTS, settings, COLUMNS)
    print(f"\n{sentence(runs)}")

    def picture() -> Callable[[Path], None]:
        from .plot import plot

        return lambda path: plot(runs, path, PUBLISHED)

    contest.save("nbody", runs, settings, folder, picture, published=PUBLISHED)
    return 0


def sentence(runs: Runs) -> str:
    plain, ours = (runs[name] for name in CONTESTANTS)
    words = (
        f"In short: test error {best(ours):.4f} with equiconv and {best(plain):.4f} with plain PyTorch after "
        f"the same time; equiconv made {contest.faster(runs):.2f} times as many steps a second"
    )
    reached = [m["seconds"] for m, e in zip(ours, best_so_far(ours), strict=True) if e <= best(plain)]
    if reached:
        words += f" and had plain PyTorch's last error after {reached[0]:.0f} of {plain[-1]['seconds']:.0f} s"
    return f"{words}. (Published: EGNN 0.0070; PONITA 0.0043 after 300,000 steps.)"
