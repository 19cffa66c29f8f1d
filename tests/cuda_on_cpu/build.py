"""Compiles csrc/cuda/*.cu for the CPU: three builds, each a library to load with device.Device.

    fast    -O2
    asan    AddressSanitizer and UndefinedBehaviorSanitizer
    race    every load and store reported to src/analysis.cpp: races, unwritten memory, bank conflicts

A library is built once for the content of its sources, into build/cuda_on_cpu (not part of the source).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KERNELS = ROOT / "csrc" / "cuda"

FLAGS = {
    "fast": ["-O2"],
    "asan": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "race": ["-O1", "-fsanitize=thread", "-fno-tree-sra", "-fno-ipa-sra"],
}
# The emulator itself is compiled like the kernels, except that its accesses are no kernel's accesses.
EMULATOR_FLAGS = FLAGS | {"race": ["-O2"]}
EMULATOR = {
    "fast": ["cuda_on_cpu.cpp", "instructions.cpp"],
    "asan": ["cuda_on_cpu.cpp", "instructions.cpp"],
    "race": ["cuda_on_cpu.cpp", "instructions.cpp", "analysis.cpp"],
}


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


def library(build: str, sources: tuple[Path, ...] | None = None) -> Path:
    """The library with the kernels in `sources`, all of csrc/cuda unless given."""
    name = sources[0].stem if sources else "kernels"
    sources = sources or (*sorted(KERNELS.glob("*.cu")), HERE / "launchers.cpp")
    folders = [HERE / "src", HERE / "include", KERNELS, KERNELS.parent]
    read = sorted(p for f in folders for p in f.rglob("*") if p.is_file()) + list(sources) + [Path(__file__)]
    content = hashlib.sha256(build.encode() + str(cuda_include()).encode())
    for path in read:
        content.update(path.name.encode() + path.read_bytes())
    target = ROOT / "build" / "cuda_on_cpu" / f"{name}-{build}-{content.hexdigest()[:16]}.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes that want the same library wait for the first
        if not target.exists():
            _compile(build, sources, target)
    return target


def _compile(build: str, sources: tuple[Path, ...], target: Path) -> None:
    scratch = target.with_suffix(".objects")
    scratch.mkdir(exist_ok=True)
    command = [compiler(), "-std=c++20", "-g", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    command += [
        "-fno-omit-frame-pointer",
        f"-I{HERE / 'include'}",
        f"-I{KERNELS}",
        "-isystem",
        str(cuda_include()),
    ]
    parts = [(s, FLAGS[build]) for s in sources]
    parts += [(HERE / "src" / s, EMULATOR_FLAGS[build]) for s in EMULATOR[build]]

    def compile_one(part: tuple[Path, list[str]]) -> Path:
        source, flags = part
        out = scratch / (source.stem + ".o")
        _run([*command, *flags, "-x", "c++", "-c", str(source), "-o", str(out)])
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, parts))
    # The analysis stands in for ThreadSanitizer's runtime, so the race build links without it.
    link = EMULATOR_FLAGS[build] if build == "asan" else []
    made = scratch / "library.so"
    _run([*command[:1], "-shared", "-Wl,-Bsymbolic", *link, "-o", str(made), *map(str, objects)])
    made.replace(target)
    shutil.rmtree(scratch)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
