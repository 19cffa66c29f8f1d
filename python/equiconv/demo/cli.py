"""``python -m equiconv demo``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ..bench.cli import BadOptions
from . import run as text
from . import train
from .digits import run as digits
from .digits import train as digits_train
from .forces import run as forces
from .forces import train as forces_train
from .molecules import run as molecules
from .molecules import train as molecules_train
from .nbody import run as nbody
from .nbody import train as nbody_train
from .recall import run as recall
from .recall import train as recall_train


class Example(NamedTuple):
    """run: given its settings and a folder. seconds: of both contestants together; None: steps count."""

    run: Any
    settings: Any
    seconds: float | None
    about: str


EXAMPLES = {
    "text": Example(text.run, train.Settings, 60, "a language model of long convolutions"),
    "nbody": Example(nbody.run, nbody_train.Settings, 600, "PONITA on charged particles"),
    "molecules": Example(
        molecules.run, molecules_train.Settings, 120, "PONITA on measured energies of molecules"
    ),
    "forces": Example(forces.run, forces_train.Settings, 240, "PONITA as a force field, and its dynamics"),
    "recall": Example(recall.run, recall_train.Settings, None, "Orchid recalls what went with a key"),
    "digits": Example(digits.run, digits_train.Settings, None, "Orchid reads digits pixel by pixel"),
}


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number.")
    return value


def count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number.")
    return int(text)


SIZES = {
    "batch": "samples in a step",
    "channels": "width of the model",
    "length": "L, the context",
    "vocabulary": "symbols of recall",
    "seeds": "how many runs of each model",
    "blocks": "of the language model",
    "layers": "of the other models",
    "orientations": "at each point",
    "functions": "in the basis of PONITA's filters",
    "steps": "of training, or of the dynamics by learned forces",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = "; ".join(f"{name}: {example.about}" for name, example in EXAMPLES.items())
    parser.add_argument(
        "example", nargs="?", choices=EXAMPLES, default="text", help=f"{about} (default: text)"
    )
    defaults = ", ".join(
        f"{name} {example.seconds:g}" for name, example in EXAMPLES.items() if example.seconds
    )
    parser.add_argument(
        "--seconds", type=positive, help=f"training time, shared by the contestants (default: {defaults})"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("equiconv-demo"), help="folder for pictures and numbers"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=count)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    for name, help in SIZES.items():
        parser.add_argument(f"--{name}", type=count, help=f"{help}{_defaults(name)}")


def run(options: argparse.Namespace) -> int:
    example = EXAMPLES[options.example]
    known = {field.name for field in fields(example.settings)}
    given = {
        name: value
        for name in ("seed", "threads", "device", *SIZES)
        if (value := getattr(options, name)) is not None
    }
    for name in given:
        if name not in known:
            raise BadOptions(f"--{name} is not an option of {options.example}.")
    if example.seconds is not None:
        given["seconds"] = (options.seconds or example.seconds) / 2
    elif options.seconds is not None:
        raise BadOptions(f"--seconds is not an option of {options.example}, which takes --steps.")
    return int(example.run(example.settings(**given), options.out))


def _defaults(size: str) -> str:
    known = (
        f"{name} {field.default}"
        for name, example in EXAMPLES.items()
        for field in fields(example.settings)
        if field.name == size
    )
    return f" (default: {', '.join(known)})"
