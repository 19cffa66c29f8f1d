from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from test_fft_conv import exact as exact_fft_conv
from torch import Tensor

from equiconv import fft_conv, spectral_conv
from equiconv.ops.check import LAYOUTS
from equiconv.ops.spectral_conv import _through_filter, _through_filter_backward
from equiconv.reference.spectral_conv import spectral_conv as reference

SHARED, PER_SAMPLE = "DF", "BDF"
GATES = ("pre_gate", "post_gate")
ALL = (*GATES, "skip")


def sample(
    name: str,
    batch: int,
    channels: int,
    length: int,
    *,
    spectrum: str = SHARED,
    real: bool = False,
    layout: str = "bdl",
    extras: Iterable[str] = (),
    **kind: Any,
) -> Sample:
    signal = layout.upper()
    shapes = {"x": signal, "spectrum": spectrum, "skip": "D", **dict.fromkeys(GATES, signal)}
    tensors = {key: shapes[key] for key in ("x", "spectrum", *extras)}
    sizes = {"B": batch, "D": channels, "L": length, "F": length // 2 + 1}
    return Sample(
        name, tensors, sizes, {"layout": layout}, complex=frozenset(() if real else ["spectrum"]), **kind
    )


SAMPLES = (
    sample("even", 2, 2, 6, extras=ALL),
    sample("odd-per-sample", 2, 2, 5, spectrum=PER_SAMPLE, layout="bld", extras=ALL),
    sample("real", 2, 2, 6, spectrum=PER_SAMPLE, real=True, extras=["pre_gate"]),
    sample("strided", 2, 2, 5, spectrum=PER_SAMPLE, extras=ALL, strided=True),
    sample("real-shared", 2, 3, 4, real=True, layout="bld"),
    sample("one-position", 2, 3, 1, extras=ALL),
    sample("two-positions", 1, 2, 2, real=True),
    sample("no-batch", 0, 3, 5, extras=ALL),
    sample("no-batch-per-sample", 0, 3, 4, spectrum=PER_SAMPLE, layout="bld"),
    sample("no-channels", 2, 0, 5, real=True, extras=ALL),
    sample("no-positions", 2, 3, 0, spectrum=PER_SAMPLE, extras=ALL),
    sample("prime", 2, 3, 509, spectrum=PER_SAMPLE, extras=ALL),
    sample("twice-a-prime", 3, 2, 502, real=True, layout="bld", extras=ALL),
    sample("power", 2, 3, 1024, layout="bld", extras=ALL),
    sample("power-per-sample", 2, 2, 8192, spectrum=PER_SAMPLE, extras=ALL),
    sample("one-row", 1, 1, 16384, extras=ALL),
    sample("composite", 3, 2, 2520, real=True, extras=GATES),
    sample("odd-composite", 2, 40, 315, spectrum=PER_SAMPLE, extras=ALL),
    *(sample(f"power-times-{odd}", 2, 2, 512 * odd, strided=True, extras=ALL) for odd in (3, 5, 7)),
    sample("many-batches", 70, 2, 24, real=True, extras=ALL),
    sample("float32-weights", 2, 3, 100, real=True, extras=ALL, float32=frozenset(["spectrum", "skip"])),
)

REFUSALS = (
    Refusal("spectral_conv: layout must be bdl or bld, but is dbl", options={"layout": "dbl"}),
    Refusal("spectral_conv: x must be (B, D, L), but has shape (2, 6)", {"x": lambda x: x[0]}),
    Refusal(
        "spectral_conv: x must be float32, float64, bfloat16 or float16, but is int64",
        {"x": lambda x: x.long()},
    ),
    Refusal(
        "spectral_conv: spectrum must be (D, L//2+1) or (B, D, L//2+1), but has shape (4,)",
        {"spectrum": lambda s: s[0]},
    ),
    Refusal(
        "spectral_conv: spectrum must be complex64, float32, bfloat16 or float16 beside float32 x, "
        "but is complex128",
        {"spectrum": lambda s: s.to(torch.complex128)},
    ),
    Refusal(
        "spectral_conv: spectrum must be complex128 or float64 beside float64 x, but is complex64",
        {"x": lambda x: x.double()},
    ),
    Refusal(
        "spectral_conv: spectrum must have the batch of x, 2, but has 3",
        {"spectrum": lambda s: s.expand(3, -1, -1)},
    ),
    Refusal(
        "spectral_conv: spectrum must have the channels of x, 2, but has 1", {"spectrum": lambda s: s[:1]}
    ),
    Refusal(
        "spectral_conv: spectrum must have 4 frequencies where the length of x is 6, but has 3",
        {"spectrum": lambda s: s[:, 1:]},
    ),
    Refusal(
        "spectral_conv: spectrum must be on the device of x, {device}, but is on meta",
        {"spectrum": lambda s: s.to("meta")},
    ),
    Refusal(
        "spectral_conv: pre_gate must have the shape of x, (2, 2, 6), but has (2, 2, 5)",
        {"pre_gate": lambda p: p[:, :, 1:]},
    ),
    Refusal(
        "spectral_conv: post_gate must have the dtype of x, float32, but has float16",
        {"post_gate": lambda q: q.half()},
    ),
    Refusal(
        "spectral_conv: skip must have shape (2,), one for each channel of x, but has (1,)",
        {"skip": lambda d: d[:1]},
    ),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    return sample(
        "random",
        draw(st.integers(1, 3)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 400) | st.integers(1, 12)),
        spectrum=draw(st.sampled_from([SHARED, PER_SAMPLE])),
        real=draw(st.booleans()),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        extras=[name for name in ALL if draw(st.booleans())],
        strided=draw(st.booleans()),
        float32=frozenset(name for name in ("spectrum", "skip") if draw(st.booleans())),
    )


def weights_of_frequencies(length: int) -> Tensor:
    """What a frequency counts in a filter: inner ones stand for two."""
    weights = torch.full((length // 2 + 1,), 2 / max(length, 1), dtype=torch.float64)
    weights[0] = 1 / max(length, 1)
    if length % 2 == 0:
        weights[-1] = 1 / max(length, 1)
    return weights


def exact(x: Tensor, spectrum: Tensor, *, layout: str, **rest: Any) -> Tensor:
    """With the filter by its definition, as a sum over frequencies."""
    length = x.shape[-1 if layout == "bdl" else -2]
    frequency, position = torch.arange(length // 2 + 1)[:, None], torch.arange(length)
    angle = (frequency * position % max(length, 1)).double() * (2 * math.pi / max(length, 1))
    weights = weights_of_frequencies(length)[:, None]
    filter = spectrum.real @ (weights * angle.cos()).to(x)
    if spectrum.is_complex():
        filter = filter - spectrum.imag @ (weights * angle.sin()).to(x)
    return exact_fft_conv(x, filter, mode="circular", layout=layout, **rest)


def of_squares(x: Tensor, spectrum: Tensor, *, layout: str, **rest: Any) -> Tensor:
    """Every tap sums all frequencies, and a transform mixes them: their squares count alike for all taps."""
    length = x.shape[-1 if layout == "bdl" else -2]
    weights = weights_of_frequencies(length).square().to(x)
    filter = (spectrum.real * weights).sum(-1, keepdim=True)
    if spectrum.is_complex():
        weights = weights.clone()
        weights[0] = 0
        if length % 2 == 0:
            weights[-1] = 0
        filter = filter + (spectrum.imag * weights).sum(-1, keepdim=True)
    filter = filter.expand(*spectrum.shape[:-1], length)
    return exact_fft_conv(x, filter, mode="circular", layout=layout, **rest)


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, str]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    arguments = tuple(tensors.get(name) for name in ("x", "spectrum", *ALL))
    args = (*arguments, LAYOUTS[options["layout"]])
    grad_out = torch.randn_like(tensors["x"], requires_grad=True)
    yield torch.ops.equiconv.spectral_conv.default, args
    yield torch.ops.equiconv.spectral_conv_backward.default, (grad_out, *args, *(True,) * 5)
    yield (
        torch.ops.equiconv.spectral_conv_backward.default,
        (grad_out, *args, False, True, False, True, False),
    )


class TestContract(contract.Contract):
    op = Op(
        function=spectral_conv,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("x",), ("spectrum", "skip"), ("pre_gate",), ("post_gate",)),
        grown=lambda sizes: {
            "B": sizes["B"] + 2,
            "D": sizes["D"] + 3,
            "L": sizes["L"] + 6,
            "F": sizes["F"] + 3,
        },
        weights=("spectrum", "skip"),
        exact=exact,
        of_squares=of_squares,
        dispatched=dispatched,
    )


# ---- what is special about a spectrum ----------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 31, 64])
def test_commutes_with_shifts(length: int, device: str) -> None:
    tensors = sample("", 2, 3, length, extras=ALL).make(torch.float64, device)
    y = spectral_conv(**tensors)
    for shift in (1, length // 2, length - 1):
        rolled = {k: t.roll(shift, -1) if k in ("x", *GATES) else t for k, t in tensors.items()}
        torch.testing.assert_close(spectral_conv(**rolled), y.roll(shift, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_a_spectrum_of_ones_changes_nothing(length: int, device: str) -> None:
    x = torch.randn(2, 3, length, dtype=torch.float64, device=device)
    ones = torch.ones(3, length // 2 + 1, dtype=torch.float64, device=device)
    torch.testing.assert_close(spectral_conv(x, ones), x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [2, 7, 8])
def test_is_the_circular_convolution_with_its_filter(length: int, device: str) -> None:
    x = torch.randn(2, 3, length, dtype=torch.float64, device=device)
    k = torch.randn(3, length, dtype=torch.float64, device=device)
    y = fft_conv(x, k, mode="circular")
    torch.testing.assert_close(spectral_conv(x, torch.fft.rfft(k)), y, rtol=0, atol=1e-13)


def test_imaginary_parts_that_no_real_filter_has_are_not_read(device: str) -> None:
    """At frequency 0 and, for even lengths, at half the rate: as in torch.fft.irfft."""
    x = torch.randn(2, 3, 8, dtype=torch.float64, device=device)
    spectrum = torch.randn(3, 5, dtype=torch.complex128, device=device)
    changed = spectrum.clone()
    changed[:, [0, -1]] += 5j
    torch.testing.assert_close(spectral_conv(x, changed), spectral_conv(x, spectrum), rtol=0, atol=1e-13)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("spectrum", [SHARED, PER_SAMPLE])
def test_through_the_filter_is_the_same(length: int, real: bool, spectrum: str) -> None:
    """What CUDA tensors take at lengths without kernels, here on a CPU."""
    tensors = sample("", 2, 3, length, spectrum=spectrum, real=real, extras=ALL).make(torch.float64, "cpu")
    args = (*(tensors[name].detach() for name in ("x", "spectrum", *ALL)), LAYOUTS["bdl"])
    grad_out = torch.randn_like(args[0])
    ours = [_through_filter(*args), *_through_filter_backward(grad_out, *args, *(True,) * 5)]
    ops = torch.ops.equiconv
    native = [ops.spectral_conv(*args), *ops.spectral_conv_backward(grad_out, *args, *(True,) * 5)]
    torch.testing.assert_close(ours, native, rtol=0, atol=1e-13)
