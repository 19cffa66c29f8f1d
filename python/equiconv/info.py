"""``python -m equiconv info``: what is installed, and what it found."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

import torch

import equiconv


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def facts() -> dict[str, Any]:
    """What the build knows of itself, and what is found here."""
    return {
        **equiconv.build_info(),
        "cpu_capability_of_torch": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda_of_torch": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def run(options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps(facts(), indent=2, default=str))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", title="equiconv", show_header=False)
    for name, value in facts().items():
        table.add_row(name.replace("_", " "), words(value))
    Console().print(table)
    return 0


def words(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
