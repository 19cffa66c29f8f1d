"""``python -m equiconv demo molecules``: both contestants, one after the other, and the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import contest
from ..contest import Runs, best
from ..ponita import CONTESTANTS
from .data import PARTS, load
from .train import Settings

COLUMNS = {"training": ".4f", "validation": ".3f", "test": ".3f"}


def run(settings: Settings, folder: Path) -> int:
    print(
        f"PONITA ({settings.layers} layers, {settings.channels} channels, {settings.orientations} "
        f"orientations) learns the atomisation energies of {PARTS['training']} molecules, measured ones,\n"
        f"and is tested on {PARTS['test']} others: {settings.seconds:g} s with plain PyTorch, then "
        f"{settings.seconds:g} s with equiconv; same start, same data. Errors are mean absolute ones, in eV."
    )
    load()  # before all else, because it needs a package that may be missing
    runs = contest.hold("equiconv.demo.molecules.train", CONTESTANTS, settings, COLUMNS)
    print(f"\n{sentence(runs)}")

    def picture() -> Callable[[Path], None]:
        from .plot import plot

        return lambda path: plot(runs, path)

    contest.save("molecules", runs, settings, folder, picture)
    return 0


def sentence(runs: Runs) -> str:
    plain, ours = (runs[name] for name in CONTESTANTS)
    return (
        f"In short: test error {best(ours):.2f} eV with equiconv and {best(plain):.2f} eV with plain PyTorch "
        f"after the same time, where the composition alone leaves {ours[-1]['composition']:.2f} eV; equiconv "
        f"made {contest.faster(runs):.2f} times as many steps a second."
    )
