"""The build backend: scikit-build-core, after a look at what the build needs.

The look takes milliseconds and comes first, so that a missing torch or compiler is one sentence within
seconds, before anything is fetched or compiled. torch is found, never imported and never required: as a
build requirement every isolated build would download it.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import scikit_build_core.build as scikit
from find_torch import TorchNotFoundError, find_torch
from scikit_build_core.build import build_sdist, get_requires_for_build_sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

P = ParamSpec("P")
R = TypeVar("R")


def problem() -> str | None:
    """One sentence saying what the build lacks and what to do, or None."""
    if sys.platform != "linux":
        return f"the platform must be Linux, but is {sys.platform}"
    compiler = shlex.split(os.environ.get("CXX", ""))[:1]
    if not any(map(shutil.which, compiler or ("c++", "g++", "clang++"))):
        where = f"CXX is {compiler[0]}, which was not found" if compiler else "no C++ compiler was found"
        return f"{where}; install GCC 12 or Clang 14 or newer, or set CXX to one"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"{header} does not exist; install the development files of this Python (python3-dev)"
    try:
        folder, _ = find_torch()
    except TorchNotFoundError as error:
        return str(error)
    os.environ["EQUICONV_TORCH_DIR"] = str(folder)  # for CMake, which may run with yet another sys.path
    return None


def checked(hook: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(hook)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if sentence := problem():
            sys.exit(f"equiconv: {sentence}")
        return hook(*args, **kwargs)

    return run


get_requires_for_build_wheel = checked(scikit.get_requires_for_build_wheel)
get_requires_for_build_editable = checked(scikit.get_requires_for_build_editable)
prepare_metadata_for_build_wheel = checked(scikit.prepare_metadata_for_build_wheel)
prepare_metadata_for_build_editable = checked(scikit.prepare_metadata_for_build_editable)
build_wheel = checked(scikit.build_wheel)
build_editable = checked(scikit.build_editable)
