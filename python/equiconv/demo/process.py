"""A contestant in a process of its own, which tells what it does as lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..bench import allocator


class Failed(Exception):
    """A contestant's process ended with an error; the message is what it said."""


def records(module: str, contestant: str, settings: Any) -> Iterator[dict[str, Any]]:
    """What ``python -m module contestant settings`` prints, line by line."""
    command = [sys.executable, "-m", module, contestant, json.dumps(asdict(settings))]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=allocator.environment(),  # for all contestants alike
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        except GeneratorExit:
            process.terminate()
            raise
        if process.wait():
            complaints.seek(0)
            last = complaints.read().strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
            raise Failed(f"Training with {contestant} failed: {last[0]}")
