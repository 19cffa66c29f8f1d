"""``python -m equiconv bench``."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from equiconv.ops.check import MAX_LENGTH, MAX_LENGTHS

from . import (
    MODELS,
    PRESETS,
    harness,
    model,
    model_conditioned_conv,
    model_implicit_filter,
    model_long_conv_step,
    model_orchid_mix,
    model_pair_invariants,
    model_pair_message,
    model_pair_moments,
    promises,
)
from .harness import Case, Entry

LENGTHS = promises.LENGTHS


class BadOptions(Exception):
    """Options that do not go together; the message is a sentence for the user."""


def positive(text: str) -> int:
    """A size as people write it: 4096, 4k or 1M."""
    units = {"k": 2**10, "m": 2**20}
    digits, unit = (text[:-1], units[text[-1:].lower()]) if text[-1:].lower() in units else (text, 1)
    if not digits.isdecimal() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive size such as 4096, 4k or 1M.")
    return int(digits) * unit


def list_of(parse: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A list whose items are divided by commas."""
    return lambda text: [parse(item.strip()) for item in text.split(",")]


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}.")
        return text

    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def choice(flag: str, choices: Sequence[str], default: str, help: str) -> None:
        parser.add_argument(
            flag,
            type=list_of(one_of(choices)),
            default=default,
            help=f"{help}: {', '.join(choices)} (default: {default})",
            metavar="A,B",
        )

    parser.add_argument(
        "--preset",
        choices=[*PRESETS],
        help="what the library promises of itself, with cases of its own; exits with 1 if it is not kept",
    )
    parser.add_argument(
        "--model",
        choices=list(model.DEVICES),
        metavar="GPU",
        help=f"time nothing, but predict a floor for this GPU: {', '.join(model.DEVICES)}",
    )
    choice("--op", tuple(MODELS), "fft_conv", "operators")
    parser.add_argument(
        "--lengths", type=list_of(positive), default=list(LENGTHS), metavar="1k,4k", help="values of L"
    )
    parser.add_argument(
        "--batch", type=positive, help="B (default: chosen so that B·D·L is about 8M, on a GPU 64M)"
    )
    parser.add_argument("--channels", type=positive, help="D (default: chosen like the batch)")
    choice("--dtype", tuple(harness.DTYPES), "float32", "dtypes")
    choice("--direction", harness.DIRECTIONS, "forward,backward", "backward means forward and backward")
    choice("--mode", harness.MODES, "causal", "modes of fft_conv")
    choice("--layout", harness.LAYOUTS, "bdl", "memory layouts")
    choice("--filter", harness.FILTERS, "per-sample", "filters")
    parser.add_argument("--gates", action=argparse.BooleanOptionalAction, default=True, help="both gates")
    choice("--baselines", (*harness.BASELINES, "none"), "eager,handwritten", "what to compare with")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=positive, help="threads on the CPU (default: torch's)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each group of rows (default: 3)")
    parser.add_argument("--check", action="store_true", help="compare with the float64 reference before")
    parser.add_argument(
        "--allocator",
        choices=["keep", "default"],
        default="keep",
        help="keep freed pages in the process (glibc only), or leave malloc as it is",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")


def cases(options: argparse.Namespace) -> list[Case]:
    """Every combination of the settings that were asked for."""
    found = []
    elements = harness.ELEMENTS["cuda" if options.model else options.device]
    for op, direction, mode, layout, filter, dtype, length in itertools.product(
        options.op,
        options.direction,
        options.mode,
        options.layout,
        options.filter,
        options.dtype,
        options.lengths,
    ):
        batch, channels = harness.sizes(length, elements)
        if options.batch:
            batch, channels = options.batch, max(1, batch * channels // options.batch)
        if op == "spectral_conv":
            mode = "circular"
        found.append(
            Case(
                op=op,
                length=length,
                batch=batch,
                channels=options.channels or channels,
                dtype=dtype,
                direction=direction,
                mode=mode,
                layout=layout,
                filter=filter,
                gates=options.gates,
                device=options.device,
            )
        )
    return list(dict.fromkeys(found))


def groups(options: argparse.Namespace) -> list[list[Entry]]:
    """Cases that differ only in dtype, layout, mode or filter take turns: they are compared as well."""
    contestants = ["equiconv", *(name for name in options.baselines if name != "none")]
    together: dict[tuple[str, str, int], list[Entry]] = {}
    for case in cases(options):
        group = together.setdefault((case.op, case.direction, case.length), [])
        group += [Entry(case, contestant) for contestant in contestants]
    return list(together.values())


# Whose cases are not made from lengths, and so what is predicted.
SIZED: dict[str, Sequence[Case]] = {
    "pair_message": model_pair_message.CASES,
    "pair_moments": model_pair_moments.CASES,
    "pair_invariants": model_pair_invariants.CASES,
    "conditioned_conv": model_conditioned_conv.CASES,
    "long_conv_step": model_long_conv_step.CASES,
    "orchid_mix": model_orchid_mix.CASES,
    "implicit_filter": model_implicit_filter.CASES,
}


def validate(options: argparse.Namespace) -> None:
    if options.preset and options.device != "cpu":
        raise BadOptions(f"--preset {options.preset} is about the CPU: leave out --device.")
    for op in SIZED.keys() & set(options.op):
        if not options.model or len(options.op) > 1:
            raise BadOptions(f"--op {op} has sizes of its own: give it alone, and with --model.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise BadOptions("--device cuda: torch finds no CUDA device on this machine.")
    if "compile" in options.baselines and not harness.has_compiler():
        raise BadOptions("--baselines compile: torch.compile needs a C++ compiler, and none was found.")
    if options.seconds <= 0:
        raise BadOptions("--seconds must be positive.")
    if (
        options.preset in ("pair_message", "pair_moments", "ponita", "gate", "long_conv_step")
        and options.plot
    ):
        raise BadOptions(f"--plot is over lengths, which --preset {options.preset} has not.")
    if not options.preset:
        _check_lengths(options)
    for path in (options.json, options.csv, options.plot):
        if path and path.is_dir():
            raise BadOptions(f"{path} cannot be written: it is a folder.")
        if path and not path.absolute().parent.is_dir():
            raise BadOptions(f"{path} cannot be written: {path.absolute().parent} is not a folder.")
    if options.plot:
        from .plot import FORMATS  # needs matplotlib

        if options.plot.suffix and options.plot.suffix[1:].lower() not in FORMATS:
            raise BadOptions(f"--plot {options.plot}: matplotlib writes {', '.join(FORMATS)}.")


def _check_lengths(options: argparse.Namespace) -> None:
    most = MAX_LENGTHS.get(options.device, MAX_LENGTH)
    if max(options.lengths) > most:
        raise BadOptions(f"--lengths must be at most {most}, but one is {max(options.lengths)}.")
    if options.model:
        return  # no tensors are made
    memory = harness.memory(options.device)
    for case in cases(options):
        # x, two gates, a filter as large, and a result
        needed = 5 * case.elements * harness.DTYPES[case.dtype].itemsize
        if needed > memory:
            raise BadOptions(
                f"{case.op} of B x D x L = {case.batch} x {case.channels} x {case.length} takes "
                f"{needed / 2**30:,.0f} GiB, but there are {memory / 2**30:,.0f}."
            )


def run(options: argparse.Namespace) -> int:
    validate(options)
    from .run import run_bench, run_model  # need rich

    if options.model:
        return run_model(SIZED.get(options.op[0]) or cases(options), model.DEVICES[options.model])
    return run_bench(options, PRESETS[options.preset].groups() if options.preset else groups(options))
