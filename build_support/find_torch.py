"""Finds the installed torch without importing it: prints its folder and version, or one sentence and exits 1.

Only the headers are wanted, so any torch from 2.11 on will do. The hard part is build isolation, where the
build's interpreter cannot see the packages of the environment that is installed into:

- pip runs the environment's own interpreter with another sys.path: sysconfig still knows the folder;
- other front ends make a new environment for the build: the process that started us tells where from.

Only that environment is searched. A torch elsewhere would compile just as well, but then the installer would
fetch gigabytes of another one to go with it. EQUICONV_TORCH_DIR names a torch package and ends the search.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

OLDEST = (2, 11)


class TorchNotFoundError(Exception):
    """One sentence: what is missing and what to do."""


def find_torch() -> tuple[Path, str]:
    """The folder of the torch package and its version."""
    override = os.environ.get("EQUICONV_TORCH_DIR")
    if override:
        version = _version(Path(override))
        if version is None:
            raise TorchNotFoundError(f"EQUICONV_TORCH_DIR is {override}, which holds no torch package")
        return _checked(Path(override), version)
    target = _target()
    for folder in [*map(Path, sys.path), *_package_folders(target)]:
        version = _version(folder / "torch")
        if version is not None:
            return _checked(folder / "torch", version)
    raise TorchNotFoundError(
        f"no torch is installed in {target}; install torch 2.11 or newer there first, then run this again "
        "(or set EQUICONV_TORCH_DIR to the folder of an installed torch package)"
    )


def _version(torch: Path) -> str | None:
    try:
        match = re.search(r"__version__ *=.*?['\"]([^'\"]+)", (torch / "version.py").read_text())
    except OSError:
        return None
    return match[1] if match else None


def _checked(torch: Path, version: str) -> tuple[Path, str]:
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise TorchNotFoundError(
            f"torch in {torch} must be 2.11 or newer, but is {version}; upgrade it first"
        )
    if not (torch / "include/torch/csrc/stable/library.h").is_file():
        raise TorchNotFoundError(f"torch in {torch} has no C++ headers; install torch from a wheel")
    return torch, version


def _target() -> Path:
    """The environment that is installed into."""
    prefix = Path(sys.prefix)
    if "PIP_BUILD_TRACKER" in os.environ:
        return prefix
    parent = Path("/proc", str(os.getppid()))
    try:
        arguments = (parent / "cmdline").read_text().rstrip("\0").split("\0")
        entries = (parent / "environ").read_text(errors="replace").split("\0")
        folder = (parent / "cwd").readlink()
    except OSError:
        return prefix
    variables = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    arguments[0] = shutil.which(arguments[0], path=variables.get("PATH")) or arguments[0]
    for argument in arguments:  # the front end's own interpreter, or the one that it was told to install for
        path = folder / argument.removeprefix("--python=")
        if path.name.startswith("python") and path.parent.name == "bin":
            return path.parent.parent
        if (path / "pyvenv.cfg").is_file():
            return path
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if variables.get(name):
            return Path(variables[name])
    return folder / ".venv" if (folder / ".venv").is_dir() else prefix


def _package_folders(prefix: Path) -> Iterator[Path]:
    if prefix == Path(sys.prefix):
        yield from (Path(sysconfig.get_path(key)) for key in ("purelib", "platlib"))
    yield from _folders_in(prefix)
    if _sees_system_packages(prefix):
        yield from _folders_in(Path(sys.base_prefix))
        yield Path(site.getusersitepackages())


def _folders_in(prefix: Path) -> Iterator[Path]:
    for name in ("site-packages", "dist-packages"):
        yield from sorted(prefix.glob(f"lib*/python3*/{name}"))


def _sees_system_packages(prefix: Path) -> bool:
    try:
        text = (prefix / "pyvenv.cfg").read_text()
    except OSError:
        return True  # not a virtual environment
    return re.search(r"(?im)^include-system-site-packages\s*=\s*true", text) is not None


if __name__ == "__main__":
    try:
        print(*find_torch(), sep=";", end="")
    except TorchNotFoundError as error:
        sys.exit(f"equiconv: {error}")
