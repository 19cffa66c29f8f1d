"""Finds the installed torch without importing it: prints its folder and version, or one sentence and exits 1.

Only the headers are wanted, so any torch from 2.11 on will do, of any Python. The hard part is build
isolation, where the build's interpreter cannot see the packages of the environment that is installed into:

- pip runs the environment's own interpreter with another sys.path: its sysconfig still knows the folder.
- other front ends make a new environment for the build: then VIRTUAL_ENV, the processes that started us
  and the interpreter below tell where we came from.

EQUICONV_TORCH_DIR names the folder of the torch package and ends the search.
"""

from __future__ import annotations

import os
import re
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
    folders = [Path(override)] if override else (folder / "torch" for folder in _package_folders())
    too_old = None
    for folder in folders:
        version = _version(folder)
        if version is None:
            continue
        if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < OLDEST:
            too_old = too_old or f"torch in {folder} must be 2.11 or newer, but is {version}; upgrade it"
        elif not (folder / "include/torch/csrc/stable/library.h").is_file():
            too_old = too_old or f"torch in {folder} has no C++ headers; install torch from its wheel"
        else:
            return folder, version
    if override and not too_old:
        raise TorchNotFoundError(f"EQUICONV_TORCH_DIR is {override}, which is not the folder of a torch package")
    raise TorchNotFoundError(
        too_old
        or f"no torch is installed in {sys.prefix}; install torch 2.11 or newer there first, then run this "
        "again (or set EQUICONV_TORCH_DIR to the folder of an installed torch package)"
    )


def _version(folder: Path) -> str | None:
    try:
        text = (folder / "version.py").read_text()
    except OSError:
        return None
    match = re.search(r"__version__ *=.*?['\"]([^'\"]+)", text)
    return match[1] if match else None


def _package_folders() -> Iterator[Path]:
    """Folders that may hold torch, nearest to the environment that is installed into first."""
    yield from (Path(p) for p in sys.path if p)
    yield from (Path(sysconfig.get_path(key)) for key in ("purelib", "platlib"))
    if _sees_system_packages(Path(sys.prefix)):
        yield from _system_folders()
    # pip runs the interpreter of the environment that it installs into: a torch elsewhere would compile, but
    # then pip would fetch another one to go with it.
    if "PIP_BUILD_TRACKER" in os.environ:
        return
    for prefix in _environments(os.environ, Path.cwd()):
        yield from _folders_of(prefix)
    for prefix in _environments_of_ancestors():
        yield from _folders_of(prefix)
    yield from _system_folders()


def _folders_of(prefix: Path) -> Iterator[Path]:
    for pattern in ("lib*/python3*/site-packages", "lib*/python3*/dist-packages"):
        yield from sorted(prefix.glob(pattern), reverse=True)


def _system_folders() -> Iterator[Path]:
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    yield Path(sysconfig.get_path("purelib", vars=base))
    yield from _folders_of(Path(sys.base_prefix))
    yield Path(site.getusersitepackages())


def _sees_system_packages(prefix: Path) -> bool:
    try:
        text = (prefix / "pyvenv.cfg").read_text()
    except OSError:
        return True  # not a virtual environment
    return re.search(r"(?im)^include-system-site-packages\s*=\s*true", text) is not None


def _environments(variables: os._Environ[str] | dict[str, str], folder: Path) -> Iterator[Path]:
    yield from (Path(variables[name]) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if variables.get(name))
    yield folder / ".venv"


def _environments_of_ancestors() -> Iterator[Path]:
    """Environments of the processes that started this one, up to the first that is not a build front end."""
    pid = os.getppid()
    while pid > 1:
        process = Path("/proc", str(pid))
        try:
            arguments = (process / "cmdline").read_text().split("\0")
            entries = (process / "environ").read_text(errors="replace").split("\0")
            folder = (process / "cwd").readlink()
            pid = int(re.findall(r"PPid:\s*(\d+)", (process / "status").read_text())[0])
        except (OSError, IndexError):
            return
        if not re.match(r"python|pip|uv|cmake|ninja|make", Path(arguments[0]).name):
            return
        for argument in arguments:  # the interpreter itself, or the one that a front end was told to use
            if "/" in argument and Path(argument).name.startswith("python"):
                yield (folder / argument).parent.parent
        yield from _environments(dict(e.split("=", 1) for e in entries if "=" in e), folder)


if __name__ == "__main__":
    try:
        print(*find_torch(), sep=";", end="")
    except TorchNotFoundError as error:
        sys.exit(f"equiconv: {error}")
