"""What is measured on a GPU, and predicted for one."""

from __future__ import annotations

from dataclasses import replace

from .harness import DIRECTIONS, ELEMENTS, Case, Entry, sizes

KIB = 1024
LENGTHS = (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, KIB * KIB)
BASELINES = ("eager", "handwritten")


def base_case(length: int, direction: str, device: str, elements: int = ELEMENTS["cuda"]) -> Case:
    """fft_conv, causal, a filter per sample, both gates, float32, (B, D, L)."""
    batch, channels = sizes(length, elements)
    return Case(
        op="fft_conv", length=length, batch=batch, channels=channels, direction=direction, device=device
    )


def variants(case: Case) -> list[Case]:
    return [
        replace(case, dtype=dtype, layout=layout)
        for dtype in ("float32", "bfloat16")
        for layout in ("bdl", "bld")
    ]


def groups(
    device: str, lengths: tuple[int, ...] = LENGTHS, elements: int = ELEMENTS["cuda"]
) -> list[list[Entry]]:
    """Entries of a group take turns. torch.compile comes last: it may take longer than there is time."""
    plan, compiled = [], []
    for length in lengths:
        for direction in DIRECTIONS:
            case = base_case(length, direction, device, elements)
            cases = variants(case)
            if length in lengths[1:4:2]:
                spectral = replace(case, op="spectral_conv", mode="circular")
                cases += [replace(case, filter="shared"), spectral]
                compiled.append([Entry(case, "equiconv"), Entry(case, "compile")])
            plan.append([Entry(c, contestant) for c in cases for contestant in ("equiconv", *BASELINES)])
    return plan + (compiled if device == "cuda" else [])
