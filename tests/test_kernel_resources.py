"""The check of the compiled CUDA kernels finds what it is to find; CI runs it on the library it built."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from equiconv.bench.kernel_resources import Expected, Kernel, accept, instructions_of, judge

SASS = """
arch = sm_90a
\t\tFunction : _Z4copyPK6float4PS_
        /*0000*/                   LDC R1, c[0x0][0x28] ;      /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ; /* 0x0000000402047981 */
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ; /* 0x0000000c08047239 */
        /*0030*/              @UP1 STG.E.128 desc[UR4][R6.64], R4 ;  /* 0x0000000406007985 */
"""
GOOD = Kernel(90, "copy", 64, 0, 0, 0, 256, instructions_of(SASS)[90, "_Z4copyPK6float4PS_"])
TABLE = {"copy": Expected(registers={"90": 64}, blocks={"90": 4}, meant=["LDG.128", "STG.128", "HMMA"])}


def test_instructions_are_read() -> None:
    assert GOOD.instructions == Counter(["LDC", "LDG.E.128.CONSTANT", "HMMA.16816.F32.BF16", "STG.E.128"])
    assert judge([GOOD], TABLE) == []


@pytest.mark.parametrize(
    ("kernel", "complaint"),
    [
        (replace(GOOD, registers=65), "has 65 registers, had 64"),
        (replace(GOOD, registers=80), "has 3 blocks per multiprocessor, had 4"),
        (replace(GOOD, stack=8), "uses local memory: 8 bytes, 0 instructions"),
        (replace(GOOD, instructions=GOOD.instructions + Counter({"STL.64": 3})), "0 bytes, 3 instructions"),
        (replace(GOOD, instructions=Counter(["LDG.E.128", "STG.E.64", "HMMA"])), "STG.128, but has none"),
        (replace(GOOD, instructions=Counter(["LDG.E.128", "STG.E.128"])), "have HMMA, but has none"),
        (replace(GOOD, name="other"), "other is not in kernel_resources.json"),
        (replace(GOOD, architecture=80), "sm_80 copy is not in kernel_resources.json"),
    ],
)
def test_a_kernel_that_is_worse_is_named(kernel: Kernel, complaint: str) -> None:
    assert any(complaint in sentence for sentence in judge([kernel], TABLE))


def test_a_kernel_that_is_gone_is_named() -> None:
    assert judge([], TABLE) == ["copy is in kernel_resources.json but no longer in the library"]


def test_blocks_are_those_of_the_typical_launch() -> None:
    """Threads and dynamic shared memory: 64 registers allow four blocks of 256 threads, 100 KiB two."""
    table = {
        "copy": TABLE["copy"]
        | Expected(registers={"90": 64}, blocks={"90": 2}, meant=[], typical=[256, 102400])
    }
    assert judge([GOOD], table) == []
    assert accept([GOOD], table)["copy"]["blocks"] == {"90": 2}
    assert accept([GOOD], table)["copy"]["typical"] == [256, 102400]
    more = {"copy": {**table["copy"], "typical": [256, 204800]}}
    assert judge([GOOD], more) == ["sm_90 copy has 1 blocks per multiprocessor, had 2"]


def test_accepting_keeps_what_is_meant() -> None:
    accepted = accept([replace(GOOD, registers=80)], TABLE)
    assert accepted == {
        "copy": Expected(registers={"90": 80}, blocks={"90": 3}, meant=TABLE["copy"]["meant"])
    }
