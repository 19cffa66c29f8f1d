"""Compiles csrc/cuda/*.cu for the CPU: each build a library to load with device.Device.

    fast      -O2
    asan      AddressSanitizer and UndefinedBehaviorSanitizer
    race      every load and store reported to the race detector: races, unwritten memory, bank conflicts
    plain     -O0: quick to compile
    coverage  counts how often each line of a kernel runs

A library is built once for the content of its sources, into build/cuda_on_cpu (not part of the source), and
so is every object in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KERNELS = ROOT / "csrc" / "cuda"
OUT = ROOT / "build" / "cuda_on_cpu"

FLAGS = {
    "fast": ["-O2"],
    "asan": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "race": ["-O1", "-fsanitize=thread", "-fno-tree-sra", "-fno-ipa-sra"],
    "plain": ["-O0"],
    "coverage": ["-O0", "--coverage"],
}
# The emulator itself is compiled like the kernels, except that its accesses are no kernel's accesses.
EMULATOR_FLAGS = FLAGS | {"race": ["-O2"], "plain": ["-O2"], "coverage": ["-O2"]}
IN_RACE_ONLY = {"accesses.cpp", "race_detector.cpp", "memory_counts.cpp"}


class Unavailable(Exception):
    """This machine cannot build the emulator; the message says what is missing."""


@functools.cache
def cuda_include() -> Path:
    """The toolkit's headers: CUDA_HOME, the toolkit of the nvcc on PATH, or those of the PyPI packages
    nvidia-cuda-runtime and nvidia-cuda-crt."""
    folders = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    if nvcc := shutil.which("nvcc"):
        folders.append(Path(nvcc).resolve().parent.parent)
    folders.append(Path("/usr/local/cuda"))
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    folders += [packages / "cu13", packages / "cuda_runtime"]
    for folder in folders:
        if (folder / "include" / "cuda_runtime_api.h").exists() and (folder / "include" / "crt").exists():
            return folder / "include"
    raise Unavailable("no CUDA headers: set CUDA_HOME, or install nvidia-cuda-runtime and nvidia-cuda-crt")


@functools.cache
def compiler() -> str:
    if os.uname().machine != "x86_64":
        raise Unavailable("the emulator switches threads with x86-64 instructions")
    if not (found := shutil.which("g++")):
        raise Unavailable("no g++")
    return found


def asan_environment() -> dict[str, str]:
    """For a process that loads an asan build: the sanitizers must be there before Python is."""
    names = ["libasan.so", "libubsan.so"]
    found = [subprocess.check_output([compiler(), f"-print-file-name={n}"], text=True).strip() for n in names]
    return os.environ | {"LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0"}


def library(build: str, sources: tuple[Path, ...] | None = None, kernels: Path = KERNELS) -> Path:
    """The library with the kernels in `sources`, all in the folder `kernels` unless given. `kernels` may be a
    copy; what is given from KERNELS itself does not depend on it."""
    name = sources[0].stem if sources else "kernels"
    sources = sources or (*sorted(kernels.glob("*.cu")), *sorted(HERE.glob("launchers/*.cpp")))
    folders = (KERNELS if s.parent == KERNELS else kernels for s in sources)
    parts = [(s, FLAGS[build], (f, f.parent)) for s, f in zip(sources, folders, strict=True)]
    emulator = [s for s in sorted(HERE.glob("src/*.cpp")) if build == "race" or s.name not in IN_RACE_ONLY]
    parts += [(s, EMULATOR_FLAGS[build], ()) for s in emulator]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda part: _object(*part), parts))
    objects.append(_processes(1 if _variables(objects[: len(sources)]) else 2))

    target = OUT / f"{name}-{build}-{content(build, *objects)}.so"
    with _locked(target):
        if not target.exists():
            # The analysis stands in for ThreadSanitizer's runtime, so the race build links without it.
            link = FLAGS[build] if build != "race" else []
            made = target.with_suffix(".new")
            _run(
                [
                    compiler(),
                    "-shared",
                    "-Wl,-Bsymbolic,--no-undefined",
                    *link,
                    "-o",
                    str(made),
                    *map(str, objects),
                ]
            )
            made.replace(target)
    return target


def _object(source: Path, flags: list[str], folders: tuple[Path, ...]) -> Path:
    command = [compiler(), "-std=c++20", "-g1", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    command += ["-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]  # reports name who called
    command += [*flags, f"-I{HERE / 'include'}", f"-I{KERNELS}"]
    command += ["-isystem", str(cuda_include()), "-x", "c++", "-c"]
    headers = [p for p in (HERE / "include").rglob("*") if p.is_file()] + list((HERE / "src").glob("*.h"))
    headers += [p for f in folders for p in f.iterdir() if p.is_file()]
    made = OUT / f"{source.stem}-{content(*command, source, *sorted(headers))}.o"
    with _locked(made):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=OUT) as scratch:
                _run([*command, str(source), "-o", f"{scratch}/{made.name}"])
                for file in sorted(Path(scratch).iterdir()):  # what coverage needs, then the object
                    file.replace(OUT / file.name)
    return made


def _variables(objects: list[Path]) -> bool:
    """Whether kernels may keep something in variables of their own, which two processes would not share."""
    symbols = subprocess.check_output(["nm", "--defined-only", *objects], text=True)
    return bool(re.search(r" [bBdD] ", symbols))


def _processes(most: int) -> Path:
    source = OUT / f"processes{most}.cpp"
    with _locked(source):
        source.write_text(f"namespace cuda_on_cpu {{ extern const int most_processes = {most}; }}\n")
        return _object(source, [], ())


def content(*of: str | Path) -> str:
    digest = hashlib.sha256()
    for part in of:
        digest.update(part.encode() if isinstance(part, str) else part.name.encode() + part.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Test processes that want the same file wait for the first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
