"""The command line: ``python -m equiconv {info,bench,demo}``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import info
from .bench import allocator
from .bench import cli as bench
from .bench.cli import BadOptions
from .demo import cli as demo
from .demo.process import Failed

EXTRAS = {
    "ase": "demo",
    "matplotlib": "bench",
    "numpy": "bench",
    "rich": "bench",
    "sklearn": "demo",
}  # what comes with which extra


class Parser(argparse.ArgumentParser):
    """Answers a bad option with a sentence instead of a list of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n({self.prog} --help lists the options)\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m equiconv", description="Convolutions with computed filters.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,bench,demo}")
    for name, command, help in (
        ("info", info, "what is installed: versions, binaries, capabilities"),
        ("bench", bench, "time the operators against PyTorch"),
        ("demo", demo, "train models with PyTorch and with equiconv"),
    ):
        subparser = commands.add_parser(name, help=help, description=help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=subparser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(options.run(options))
    except (BadOptions, Failed) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        message = f"this needs {missing}, which is not installed: pip install equiconv[{EXTRAS[missing]}]"
    print(f"{options.parser.prog}: {message}", file=sys.stderr)
    return 2


def program() -> int:
    """main, in a process whose allocator suits what it does."""
    options = parse(sys.argv[1:])
    wanted = options.command == "bench" and options.allocator == "keep"
    if wanted and allocator.applies() and not allocator.is_tuned():
        allocator.restart(sys.argv[1:])
    return main()


if __name__ == "__main__":
    sys.exit(program())
