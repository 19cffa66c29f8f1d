"""What every CUDA kernel takes of a multiprocessor, read from the compiled code and held against
kernel_resources.json: registers and blocks no worse, no local memory but what is declared, and the
instructions that are meant.

    python bench/kernel_resources.py [--accept] [LIBRARY]

LIBRARY is a shared library or object; else the CUDA library of the installed equiconv. --accept writes what
is measured into kernel_resources.json, but for what is declared there by hand: the instructions meant,
of a kernel with dynamic shared memory its typical launch, and local memory with a reason.
Needs cuobjdump: the CUDA toolkit's, or the package nvidia-cuda-cuobjdump's. Needs no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

TABLE = Path(__file__).with_suffix(".json")

REGISTERS, THREADS, BLOCKS = 65536, 2048, 32  # of a multiprocessor, sm_80 and sm_90
SHARED = {80: (164, 163), 90: (228, 227)}  # KiB of a multiprocessor, and the most a block can have


class Declared(TypedDict, total=False):
    typical: list[int]  # threads, and bytes of dynamic shared memory, of a block of its largest launch
    local: list[int | str]  # bytes of local memory that it may use, and why


class Expected(Declared):
    """A kernel's line of the table. Architectures are keys; instructions are spelled as in "LDG.128": an
    opcode and modifiers that it must have, in any order and among others."""

    registers: dict[str, int]
    blocks: dict[str, int]
    meant: list[str]


@dataclass(frozen=True)
class Kernel:
    architecture: int
    name: str
    registers: int
    stack: int
    shared: int  # static
    local: int
    threads: int = 0  # at most, by __launch_bounds__
    instructions: Counter[str] = field(default_factory=Counter)  # opcodes with their modifiers

    @property
    def spills(self) -> bool:
        return bool(self.stack or self.local)

    def has(self, instruction: str) -> bool:
        wanted = instruction.split(".")
        found = (opcode.split(".") for opcode in self.instructions)
        return any(parts[0] == wanted[0] and set(wanted) <= set(parts) for parts in found)

    def typical_blocks(self, expected: Expected | None = None) -> int:
        """Blocks at a time of the largest launch; of a row kernel of fft_conv, with N = 4096 points."""
        if expected and "typical" in expected:
            return self.blocks(*expected["typical"])
        if (kept := spectra_kept(self.name)) is not None and self.name.split("<")[1].startswith("float"):
            return self.blocks(4096 // GROUP, fft_conv_shared(4096, kept))
        return self.blocks(self.threads or 1024, 0)

    def violations(self, expected: Expected | None) -> list[str]:
        """A sentence for each thing that is worse than expected."""
        name, architecture = f"sm_{self.architecture} {self.name}", str(self.architecture)
        if expected is None or architecture not in expected["registers"]:
            return [f"{name} is not in {TABLE.name}; declare it, or run with --accept"]
        found = []
        allowed = int(expected["local"][0]) if "local" in expected else 0
        if self.stack + self.local > allowed or (not allowed and (self.has("LDL") or self.has("STL"))):
            moves = sum(n for opcode, n in self.instructions.items() if opcode[:3] in ("LDL", "STL"))
            found.append(f"{name} uses local memory: {self.stack + self.local} bytes, {moves} instructions")
        if self.registers > (most := expected["registers"][architecture]):
            found.append(f"{name} has {self.registers} registers, had {most}")
        if (blocks := self.typical_blocks(expected)) < (least := expected["blocks"][architecture]):
            found.append(f"{name} has {blocks} blocks per multiprocessor, had {least}")
        missing = [instruction for instruction in expected["meant"] if not self.has(instruction)]
        return found + [f"{name} is meant to have {instruction}, but has none" for instruction in missing]

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


def instructions_of(sass: str) -> dict[tuple[int, str], Counter[str]]:
    """Opcodes of every kernel, by architecture and mangled name."""
    kernels: dict[tuple[int, str], Counter[str]] = {}
    architecture, opcodes = 0, Counter[str]()
    for line in sass.splitlines():
        if found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line):
            opcodes[found[1]] += 1
        elif found := re.match(r"arch = sm_(\d+)", line):
            architecture = int(found[1])
        elif found := re.search(r"Function : (\S+)", line):
            opcodes = kernels[architecture, found[1]] = Counter()
    return kernels


def dump(library: Path, option: str) -> str:
    command = [cuobjdump(), option, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def kernels_of(library: Path) -> set[str]:
    """Their names, which is quick."""
    symbols = re.findall(r"Function (\S+?):", dump(library, "--dump-resource-usage"))
    return set(demangled(sorted(set(symbols))))


def read(library: Path) -> list[Kernel]:
    threads = {}
    for section in dump(library, "--dump-elf").split(".nv.info.")[1:]:
        name = section.split(None, 1)[0]
        if bound := re.search(r"EIATTR_MAX_THREADS\s+Format:\s+\w+\s+Value:\s+(0x\w+)", section):
            threads[name] = int(bound[1], 16)
    instructions = instructions_of(dump(library, "--dump-sass"))

    found_kernels, architecture = {}, 0
    for line in dump(library, "--dump-resource-usage").splitlines():
        if found := re.search(r"arch = sm_(\d+)", line):
            architecture = int(found[1])
        if found := re.search(r"Function (\S+?):", line):
            name = found[1]
        if found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = (int(n) for n in found.groups())
            shared = max(shared - 1024 * (architecture >= 90), 0)  # the system's own; here listed
            found_kernels[architecture, name] = (registers, stack, shared, local, threads.get(name, 0))
    names = demangled([name for _, name in found_kernels])
    kernels = [
        Kernel(key[0], name, *numbers, instructions[key])
        for (key, numbers), name in zip(found_kernels.items(), names, strict=True)
    ]
    return sorted(kernels, key=lambda kernel: (kernel.architecture, kernel.name))


def demangled(names: list[str]) -> list[str]:
    if not names or not (tool := shutil.which("c++filt")):
        return names
    full = subprocess.run([tool, *names], capture_output=True, text=True, check=True).stdout
    bare = re.sub(r"\(anonymous namespace\)::|\w+::|^void ", "", full, flags=re.MULTILINE)
    return [name.partition("(")[0].replace(" >", ">") for name in bare.splitlines()]


GROUP = 16  # points a thread of fft_conv takes at a time


def spectra_kept(name: str) -> int | None:
    """By a kernel of fft_conv over whole rows, with a filter of its own for each."""
    return {"convolve": 1, "correlate": 2}.get(name.split("<")[0]) if "WholeRows" in name else None


def fft_conv_shared(n: int, spectra: int, size: int = 8) -> int:
    """Of one row of N points: work, two tables of factors, spectra (csrc/cuda/ring_transform.cuh)."""
    log_n = n.bit_length() - 1
    factors = 1 + sum(1 << depth for depth in range((log_n - 1) % 4 + 1, log_n, 4))
    return size * (n + n // 16 + 2 * factors + spectra * n)


def accept(kernels: list[Kernel], table: dict[str, Expected]) -> dict[str, Expected]:
    accepted: dict[str, Expected] = {}
    for kernel in sorted(kernels, key=lambda kernel: (kernel.name, kernel.architecture)):
        before = table.get(kernel.name, Expected(registers={}, blocks={}, meant=[]))
        line = accepted.setdefault(kernel.name, Expected(**{**before, "registers": {}, "blocks": {}}))
        line["registers"][str(kernel.architecture)] = kernel.registers
        line["blocks"][str(kernel.architecture)] = kernel.typical_blocks(line)
    return accepted


def judge(kernels: list[Kernel], table: dict[str, Expected]) -> list[str]:
    found = [sentence for kernel in kernels for sentence in kernel.violations(table.get(kernel.name))]
    gone = sorted(table.keys() - {kernel.name for kernel in kernels})
    return found + [f"{name} is in {TABLE.name} but no longer in the library" for name in gone]


def show(kernels: list[Kernel], table: dict[str, Expected]) -> None:
    columns = ("registers", "threads", "blocks/SM", "stack", "shared", "instructions", "16-byte")
    print(f"{'':8}{'kernel':48}" + "".join(f" {column:>{max(len(column), 6)}}" for column in columns))
    for kernel in kernels:
        wide = sum(n for opcode, n in kernel.instructions.items() if "128" in opcode.split("."))
        cells = [kernel.registers, kernel.threads or 1024, kernel.typical_blocks(table.get(kernel.name))]
        cells += [kernel.stack + kernel.local, kernel.shared, kernel.instructions.total(), wide]
        row = "".join(f" {cell:{max(len(column), 6)}}" for column, cell in zip(columns, cells, strict=True))
        print(f"sm_{kernel.architecture:<5}{kernel.name:48}" + row + ("  SPILLS" if kernel.spills else ""))

    print("\nfft_conv, float32, one launch: dynamic shared memory and blocks per multiprocessor")
    for kernel in kernels:
        if (kept := spectra_kept(kernel.name)) is None or "<float" not in kernel.name:
            continue
        launches = []
        for n in (2048, 4096, 8192, 16384):
            limit = 1024 * SHARED[kernel.architecture][1]
            inside = next(k for k in range(kept, -1, -1) if fft_conv_shared(n, k) <= limit)
            dynamic = fft_conv_shared(n, inside)
            blocks = kernel.blocks(min(n // GROUP, 512), dynamic)
            launches.append(f"N={n}: {dynamic / 1024:.0f} KiB, {blocks}")
        print(f"sm_{kernel.architecture:<5}{kernel.name:42} " + "   ".join(launches))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kernel_resources")
    parser.add_argument("library", nargs="?", type=Path, default=installed_library())
    parser.add_argument("--accept", action="store_true")
    options = parser.parse_args(arguments)
    if options.library is None:
        print("kernel_resources: no CUDA library is built here (no nvcc), so there is nothing to read")
        return 0
    kernels = [kernel for kernel in read(options.library) if kernel.architecture in SHARED]
    if not kernels:
        print(f"kernel_resources: {options.library} holds no CUDA kernels for any of {sorted(SHARED)}")
        return 1
    table: dict[str, Expected] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    show(kernels, table)
    if options.accept:
        table = accept(kernels, table)
        lines = (f"  {json.dumps(name)}: {json.dumps(expected)}" for name, expected in table.items())
        TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    found = judge(kernels, table)
    print("", *found, f"{len(kernels)} kernels, {len(found)} complaints", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
