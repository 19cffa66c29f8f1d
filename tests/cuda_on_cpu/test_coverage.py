"""Nothing in the kernel files is left unrun: every `__global__` function, every line."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from equiconv.bench import kernel_resources

from . import build, checks
from .device import Device

LINES = 0.97  # of those with code


def in_sources() -> set[str]:
    sources = [path.read_text() for path in build.KERNELS.glob("*.cu*")]
    bare = [re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", text) for text in sources]
    return {name for text in bare for name in re.findall(r"__global__\s+void\s+(\w+)\(", text)}


def run(device: Device) -> None:
    for op in checks.OPS:
        for call, architecture in checks.of(op).calls:
            device.architecture(architecture)
            call.run(device)


@pytest.fixture(scope="module")
def launched() -> set[str]:
    try:
        device = Device(build.library("fast"), "fast")
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    device.architecture(90)
    run(device)
    return device.launched()


def test_every_kernel_is_run(launched: set[str]) -> None:
    assert in_sources()
    assert in_sources() == {name.partition("<")[0] for name in launched}


def test_every_kernel_of_the_library_is_run(launched: set[str]) -> None:
    """Each instantiation, as it stands in the binary."""
    library = kernel_resources.installed_library()
    if library is None:
        pytest.skip("built without CUDA kernels")
    kernels = {name.replace(" ", "") for name in kernel_resources.kernels_of(library)}
    assert kernels
    assert kernels <= {name.replace(" ", "") for name in launched}


def test_every_line_is_run(tmp_path: Path) -> None:
    try:
        library = build.library("coverage")
    except build.Unavailable as missing:
        pytest.skip(str(missing))
    code = "import sys; from cuda_on_cpu import device, test_coverage as t; t.run(device.Device(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(library)],
        cwd=build.ROOT / "tests", env=os.environ | {"GCOV_PREFIX": str(tmp_path)}, check=True,
    )  # fmt: skip
    counts: dict[str, Counter[int]] = {}
    for data in tmp_path.rglob("*.gcda"):
        shutil.copy(build.OUT / data.with_suffix(".gcno").name, data.parent)
        subprocess.run(["gcov", "--json-format", data.name], cwd=data.parent, check=True, capture_output=True)
    for report in tmp_path.rglob("*.gcov.json.gz"):
        for file in json.loads(gzip.decompress(report.read_bytes()))["files"]:
            path = (build.ROOT / file["file"]).resolve()
            if path.parent == build.KERNELS:
                of_file = counts.setdefault(path.name, Counter())
                for line in file["lines"]:
                    of_file[line["line_number"]] += line["count"]

    sources = [path.read_text() for path in build.KERNELS.glob("*.cu*")]
    headers = {name for text in sources for name in re.findall(r'#include "(\w+\.cuh)"', text)}
    assert set(counts) == headers | {path.name for path in build.KERNELS.glob("*.cu")}
    unrun = [f"{name}:{n}" for name, lines in sorted(counts.items()) for n in sorted(lines) if not lines[n]]
    total = sum(len(lines) for lines in counts.values())
    print(f"{total - len(unrun)} of {total} lines")
    assert len(unrun) <= (1 - LINES) * total, f"not run: {', '.join(unrun)}"
