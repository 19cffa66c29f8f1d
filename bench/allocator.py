"""Keep freed memory in the process while it measures.

By default glibc returns a large block to the system when it is freed and takes it again page by page at
the next allocation, which costs more than many a kernel. That is a cost of the allocator, not of the
contestants, and it hits hardest whoever makes the most temporaries: without it ratios are fairer.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence

HUGE = 2**40
TUNABLES = f"glibc.malloc.mmap_threshold={HUGE}:glibc.malloc.trim_threshold={HUGE}"
DEFAULT = "default: freed pages go back to the system"
KEEP = "glibc, freed pages are kept"


def applies() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def is_tuned() -> bool:
    return TUNABLES in os.environ.get("GLIBC_TUNABLES", "")


def environment() -> dict[str, str]:
    """This one's, for a process that is to keep freed memory. C libraries other than glibc ignore it."""
    others = os.environ.get("GLIBC_TUNABLES")
    return {**os.environ, "GLIBC_TUNABLES": f"{others}:{TUNABLES}" if others else TUNABLES}


def restart(arguments: Sequence[str]) -> None:
    """Start ``python -m equiconv`` anew in this process: malloc reads its settings only at the start."""
    os.environ.update(environment())
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "equiconv", *arguments])
