"""What is measured on a GPU, and predicted for one."""

from __future__ import annotations

from dataclasses import replace

from .bench_conditioned_conv import ConditionedCase
from .bench_orchid_mix import MixCase
from .bench_pair_invariants import BUNDLE as INVARIANTS
from .bench_pair_invariants import CLOUD, DISTANCES, InvariantsCase
from .bench_pair_message import BULK, NARROW, PairCase
from .bench_pair_moments import BUNDLE, FILTERS
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


def gate_cases(device: str, elements: int = ELEMENTS["cuda"]) -> list[Case]:
    """gate with both biases, rows of 1024 channels."""
    channels = min(KIB, elements)
    case = Case(
        op="gate", length=elements // channels, batch=1, channels=channels, layout="bld", device=device
    )
    return [
        replace(case, direction=direction, dtype=dtype)
        for direction in DIRECTIONS
        for dtype in ("float32", "bfloat16")
    ]


def short_conv_cases(device: str, elements: int = ELEMENTS["cuda"]) -> list[Case]:
    """short_conv in both layouts, and its gated form: four taps, L = 4k."""
    length = min(4 * KIB, elements)
    batch, channels = sizes(length, elements)
    plain = Case(op="short_conv", length=length, batch=batch, channels=channels, layout="bld", device=device)
    gated = replace(plain, op="short_conv_gated", channels=-(-channels // 3))
    return [
        replace(case, direction=direction, dtype=dtype)
        for case in (plain, replace(plain, layout="bdl"), gated)
        for direction in DIRECTIONS
        for dtype in ("float32", "bfloat16")
    ]


def conditioned_cases(device: str, elements: int = ELEMENTS["cuda"]) -> list[Case]:
    """conditioned_conv of both types where it has kernels, L = 4k."""
    length = min(4 * KIB, elements)
    batch, channels = sizes(length, elements)
    return [
        ConditionedCase(
            length=length, batch=batch, channels=channels, keyed=keyed, direction=direction, device=device
        )
        for keyed in (False, True)
        for direction in DIRECTIONS
    ]


def step_cases(device: str) -> list[Case]:
    """Two thousand tokens one by one, of 8 sequences with 256 channels; without a GPU in small."""
    length, channels = (2 * KIB, 256) if device == "cuda" else (130, 32)
    case = Case(
        op="long_conv_step", length=length, batch=8, channels=channels, layout="bld", filter="shared",
        device=device,
    )  # fmt: skip
    return [case, replace(case, dtype="bfloat16")]


def filter_cases(device: str) -> list[Case]:
    """implicit_filter of 256 channels, 128 wide; without a GPU in small."""
    lengths, channels = ((4 * KIB, 16 * KIB, 64 * KIB), 256) if device == "cuda" else ((100,), 8)
    return [
        Case(
            op="implicit_filter", length=length, batch=1, channels=channels, filter="shared", gates=False,
            direction=direction, dtype=dtype, device=device,
        )
        for length in lengths
        for direction in DIRECTIONS
        for dtype in ("float32", "bfloat16")
    ]  # fmt: skip


def mix_cases(device: str, elements: int = ELEMENTS["cuda"]) -> list[MixCase]:
    """orchid_mix of both types where it has kernels, L = 4k."""
    length = min(4 * KIB, elements)
    batch, channels = sizes(length, elements)
    return [
        MixCase(
            length=length, batch=batch, channels=channels, keyed=keyed, direction=direction, dtype=dtype,
            device=device,
        )
        for keyed in (False, True)
        for direction in DIRECTIONS
        for dtype in ("float32", "bfloat16")
    ]  # fmt: skip


def invariants_cases(device: str) -> list[InvariantsCase]:
    """pair_invariants at the sizes of its benchmark, with 16 times the pairs; without a GPU in small. Not the
    derivatives of its gradients, which the cost model has not."""
    return [
        replace(
            case,
            length=16 * case.length if device == "cuda" else 60,
            direction=direction,
            dtype=dtype,
            device=device,
        )
        for case in (INVARIANTS, CLOUD, DISTANCES)
        for direction in DIRECTIONS
        for dtype in ("float32", "bfloat16")
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
                cases += [replace(case, filter="shared"), spectral, replace(spectral, filter="shared")]
                compiled.append([Entry(case, "equiconv"), Entry(case, "compile")])
            plan.append([Entry(c, contestant) for c in cases for contestant in ("equiconv", *BASELINES)])
    for case in gate_cases(device, elements):
        plan.append([Entry(case, contestant) for contestant in ("equiconv", "eager")])
        compiled.append([Entry(case, contestant) for contestant in ("equiconv", "compile")])
    for case in short_conv_cases(device, elements):
        plan.append([Entry(case, contestant) for contestant in ("equiconv", "eager")])
        compiled.append([Entry(case, contestant) for contestant in ("equiconv", "compile")])
    plan += [
        [Entry(case, contestant) for contestant in ("equiconv", *BASELINES)]
        for case in conditioned_cases(device, elements)
    ]
    plan.append(
        [Entry(case, contestant) for case in step_cases(device) for contestant in ("equiconv", "eager")]
    )
    plan += [
        [Entry(case, contestant) for contestant in ("equiconv", "parts", "eager")]
        for case in mix_cases(device, elements)
    ]
    plan += [
        [Entry(case, contestant) for contestant in ("equiconv", "eager")] for case in filter_cases(device)
    ]
    plan += pair_groups(device)
    plan += [
        [Entry(case, contestant) for contestant in ("equiconv", "eager")] for case in invariants_cases(device)
    ]
    return plan + (compiled if device == "cuda" else [])


def pair_groups(device: str) -> list[list[Entry]]:
    """pair_message at the sizes of its promises, antipodal too, and pair_moments, with 16 times the points;
    without a GPU in small."""
    length, degree = (16000, 16) if device == "cuda" else (20, 4)

    def cases(case: PairCase, direction: str) -> list[PairCase]:
        sized = replace(case, length=length, degree=degree, direction=direction, device=device)
        return [replace(sized, dtype=dtype) for dtype in ("float32", "bfloat16")]

    return [
        [Entry(c, contestant) for c in cases(case, direction) for contestant in ("equiconv", "eager")]
        for case in (BULK, replace(BULK, antipodal=True), NARROW, FILTERS, BUNDLE)
        for direction in DIRECTIONS
    ]
