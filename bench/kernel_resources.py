"""What every CUDA kernel takes of a multiprocessor, read from the compiled code; fails if one spills.

    python bench/kernel_resources.py [LIBRARY]

LIBRARY is a shared library, object or cubin; else the CUDA library of the installed equiconv. Needs
cuobjdump: the CUDA toolkit's, or the package nvidia-cuda-cuobjdump's. Needs no GPU.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

REGISTERS, THREADS, BLOCKS = 65536, 2048, 32  # of a multiprocessor, sm_80 and sm_90
SHARED = {80: (164, 163), 90: (228, 227)}  # KiB of a multiprocessor, and the most a block can have


@dataclass(frozen=True)
class Kernel:
    architecture: int
    name: str
    registers: int
    stack: int
    shared: int  # static
    local: int
    threads: int = 0  # at most, by __launch_bounds__

    @property
    def spills(self) -> bool:
        return bool(self.stack or self.local)

    def blocks(self, threads: int, dynamic: int) -> int:
        """How many blocks, of so many threads and bytes of dynamic shared memory, run at a time."""
        of_multiprocessor, of_block = (1024 * kib for kib in SHARED[self.architecture])
        if self.shared + dynamic > of_block:
            return 0
        warps = -(-threads // 32)
        by_registers = REGISTERS // (-(-self.registers * 32 // 256) * 256) // warps
        by_shared = of_multiprocessor // (self.shared + dynamic + 1024)
        return min(by_registers, by_shared, THREADS // (32 * warps), BLOCKS)


def cuobjdump() -> str:
    packaged = Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin/cuobjdump")
    found = shutil.which("cuobjdump") or next((str(p) for p in packaged), None)
    if found is None:
        sys.exit("kernel_resources: needs cuobjdump: install the CUDA toolkit or nvidia-cuda-cuobjdump")
    return found


def installed_library() -> Path | None:
    spec = importlib.util.find_spec("equiconv")
    folders = spec.submodule_search_locations or [] if spec else []
    return next((p for f in folders for p in sorted(Path(f).glob("_equiconv_cuda*.so"))), None)


def read(library: Path) -> list[Kernel]:
    def dump(option: str) -> str:
        command = [cuobjdump(), option, str(library)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    threads = {}
    for section in dump("--dump-elf").split(".nv.info.")[1:]:
        name = section.split(None, 1)[0]
        if bound := re.search(r"EIATTR_MAX_THREADS\s+Format:\s+\w+\s+Value:\s+(0x\w+)", section):
            threads[name] = int(bound[1], 16)

    kernels, architecture = [], 0
    for line in dump("--dump-resource-usage").splitlines():
        if found := re.search(r"arch = sm_(\d+)", line):
            architecture = int(found[1])
        if found := re.search(r"Function (\S+?):", line):
            name = found[1]
        if found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = (int(n) for n in found.groups())
            shared -= 1024 * (architecture >= 90)  # the system's own, of every block anywhere; here listed
            kernels.append(Kernel(architecture, name, registers, stack, shared, local, threads.get(name, 0)))
    return sorted(kernels, key=lambda kernel: (kernel.architecture, kernel.name))


def demangled(names: list[str]) -> list[str]:
    if not (tool := shutil.which("c++filt")):
        return names
    full = subprocess.run([tool, *names], capture_output=True, text=True, check=True).stdout
    bare = re.sub(r"\(anonymous namespace\)::|\w+::|^void ", "", full, flags=re.MULTILINE)
    return [name.partition("(")[0] for name in bare.splitlines()]


def fft_conv_shared(n: int, spectra: int, size: int = 8) -> int:
    """Of one row of N points: work, two tables of factors, spectra (csrc/cuda/ring_transform.cuh)."""
    log_n = n.bit_length() - 1
    factors = 1 + sum(1 << depth for depth in range((log_n - 1) % 4 + 1, log_n, 4))
    return size * (n + n // 16 + 2 * factors + spectra * n)


def main(arguments: list[str]) -> int:
    library = Path(arguments[0]) if arguments else installed_library()
    if library is None:
        print("kernel_resources: no CUDA library is built here (no nvcc), so there is nothing to read")
        return 0
    kernels = read(library)
    if not kernels:
        print(f"kernel_resources: {library} holds no CUDA kernels")
        return 1
    names = demangled([kernel.name for kernel in kernels])

    print(f"{'':8}{'kernel':48} {'registers':>9} {'threads':>7} {'blocks/SM':>9} {'stack':>5} {'shared':>6}")
    for kernel, name in zip(kernels, names, strict=True):
        threads = kernel.threads or 1024
        spilled = f"{kernel.stack + kernel.local:5} {kernel.shared:6}{'  SPILLS' if kernel.spills else ''}"
        print(
            f"sm_{kernel.architecture:<5}{name:48} {kernel.registers:9} {threads:7}"
            f" {kernel.blocks(threads, 0):9} {spilled}"
        )

    print("\nfft_conv, float32, one launch: dynamic shared memory and blocks per multiprocessor")
    for kernel, name in zip(kernels, names, strict=True):
        spectra = {"convolve<float, WholeRows": 1, "correlate<float, WholeRows": 2}
        for kept in (k for prefix, k in spectra.items() if name.startswith(prefix)):
            cells = []
            for n in (2048, 4096, 8192, 16384):
                limit = 1024 * SHARED[kernel.architecture][1]
                inside = next(k for k in range(kept, -1, -1) if fft_conv_shared(n, k) <= limit)
                dynamic = fft_conv_shared(n, inside)
                cells.append(f"N={n}: {dynamic / 1024:.0f} KiB, {kernel.blocks(min(n // 16, 512), dynamic)}")
            print(f"sm_{kernel.architecture:<5}{name:42} " + "   ".join(cells))

    spilling = sum(kernel.spills for kernel in kernels)
    print(
        f"\n{len(kernels)} kernels, {spilling} spilling"
        if spilling
        else f"\n{len(kernels)} kernels, none spills"
    )
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
