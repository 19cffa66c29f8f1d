from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from test_fft_conv import exact as exact_fft_conv
from torch import Tensor

from equiconv import conditioned_conv, fft_conv, spectral_conv
from equiconv.ops.check import LAYOUTS
from equiconv.ops.conditioned_conv import (
    _on_cuda,
    _on_cuda_backward,
    _through_filter,
    _through_filter_backward,
)
from equiconv.reference.conditioned_conv import conditioned_conv as reference
from equiconv.reference.conditioned_conv import frequency_conv

SIGNALS = ("x", "query", "key", "pre_gate", "post_gate")
ARGUMENTS = (
    "x",
    "query",
    "key",
    "frequency_filter",
    "frequency_bias",
    "filter",
    "pre_gate",
    "post_gate",
    "skip",
)
WEIGHTS = ("frequency_filter", "frequency_bias", "filter", "skip")
ALL = ("frequency_bias", "filter", "pre_gate", "post_gate", "skip")


def sample(
    name: str,
    batch: int,
    channels: int,
    length: int,
    width: int = 3,
    *,
    keyed: bool = False,
    taps: int | None = None,
    layout: str = "bdl",
    extras: Iterable[str] = (),
    **kind: Any,
) -> Sample:
    shapes = {
        **dict.fromkeys(SIGNALS, layout.upper()),
        "frequency_filter": "DW",
        "frequency_bias": "D",
        "filter": "DK",
        "skip": "D",
    }
    given = {"x", "query", "frequency_filter", *extras, *(["key"] if keyed else [])}
    tensors = {key: shapes[key] for key in ARGUMENTS if key in given}
    sizes = {"B": batch, "D": channels, "L": length, "W": width, "K": taps or max(length, 1)}
    return Sample(name, tensors, sizes, {"layout": layout}, **kind)


SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("magnitude", 2, 2, 5, taps=4, extras=ALL),
    sample("correlation", 2, 2, 4, 4, keyed=True, layout="bld", extras=ALL),
    sample("plain-magnitude", 2, 2, 6, 2),
    sample("plain-correlation", 2, 2, 4, 2, keyed=True, extras=["skip"]),
    sample("strided", 1, 2, 5, 5, keyed=True, extras=ALL, strided=True),
    sample("strided-magnitude", 1, 2, 4, 3, layout="bld", extras=ALL, strided=True),
    sample("wider-than-the-spectrum", 1, 2, 3, 16, extras=["frequency_bias"]),
    sample("wider-correlation", 1, 2, 4, 15, keyed=True, extras=["frequency_bias"]),
    sample("one-position", 2, 3, 1, 5, extras=ALL),
    sample("one-position-correlation", 2, 3, 1, 4, keyed=True, extras=ALL),
    sample("two-positions", 1, 2, 2, keyed=True, taps=1, extras=ALL),
    sample("no-batch", 0, 3, 5, keyed=True, extras=ALL),
    sample("no-channels", 2, 0, 5, extras=ALL),
    sample("no-positions", 2, 3, 0, keyed=True, extras=ALL),
    # Larger: values, bits, threads.
    sample("prime", 2, 3, 509, 5, extras=ALL),
    sample("prime-correlation", 2, 3, 509, 5, keyed=True, taps=100, extras=ALL),
    sample("twice-a-prime", 3, 2, 502, keyed=True, layout="bld", extras=ALL),
    sample("power", 2, 3, 1024, 3, layout="bld", extras=ALL),
    sample("power-correlation", 2, 20, 1024, 4, keyed=True, layout="bld", extras=ALL),
    sample("power-plain", 2, 2, 2048, 16, keyed=True),
    sample("power-magnitude", 2, 2, 4096, 5, extras=["pre_gate", "frequency_bias"]),
    sample("one-row", 1, 1, 16384, 3, keyed=True, extras=ALL),
    sample("composite", 3, 2, 2520, 5, extras=["pre_gate", "post_gate"]),
    sample("odd-composite", 2, 40, 315, 7, keyed=True, extras=ALL),
    sample("power-times-3", 2, 2, 1536, 3, strided=True, extras=ALL),
    sample("many-batches", 70, 2, 24, extras=ALL),
    sample("float32-weights", 2, 3, 100, keyed=True, extras=ALL, float32=frozenset(WEIGHTS)),
)


def refusal(sentence: str, name: str | None = None, change: Any = None, **options: Any) -> Refusal:
    return Refusal(f"conditioned_conv: {sentence}", {} if name is None else {name: change}, options)


REFUSALS = (
    refusal("layout must be bdl or bld, but is dbl", layout="dbl"),
    refusal("x must be (B, D, L), but has shape (2, 5)", "x", lambda x: x[0]),
    refusal("x must be (B, L, D), but has shape (2, 5)", "x", lambda x: x[0], layout="bld"),
    refusal("x must be float32, float64, bfloat16 or float16, but is int64", "x", lambda x: x.long()),
    refusal("query must have the shape of x, (2, 2, 5), but has (2, 2, 4)", "query", lambda q: q[:, :, 1:]),
    refusal("query must have the dtype of x, float32, but has float16", "query", lambda q: q.half()),
    refusal("key must have the shape of x, (2, 2, 5), but has (1, 2, 5)", "key", lambda k: k[:1]),
    refusal("key must be on the device of x, {device}, but is on meta", "key", lambda k: k.to("meta")),
    refusal("frequency_filter must be (D, W), but has shape (3,)", "frequency_filter", lambda w: w[0]),
    refusal(
        "frequency_filter must be (D, W), but has shape (1, 2, 3)", "frequency_filter", lambda w: w[None]
    ),
    refusal(
        "frequency_filter must have the dtype of x, float32, but has bfloat16",
        "frequency_filter",
        lambda w: w.bfloat16(),
    ),
    refusal(
        "frequency_filter must have the channels of x, 2, but has 1", "frequency_filter", lambda w: w[:1]
    ),
    refusal("frequency_filter must have 1 to 16 taps, but has 0", "frequency_filter", lambda w: w[:, :0]),
    refusal(
        "frequency_filter must have 1 to 16 taps, but has 17",
        "frequency_filter",
        lambda w: w[:, :1].expand(-1, 17),
    ),
    refusal(
        "frequency_bias must have shape (2,), one for each channel of x, but has (1,)",
        "frequency_bias",
        lambda b: b[:1],
    ),
    refusal("filter must be (D, Lf), but has shape (4,)", "filter", lambda f: f[0]),
    refusal(
        "filter must have 1 to 5 taps where the length of x is 5, but has 6",
        "filter",
        lambda f: f[:, :1].expand(-1, 6),
    ),
    refusal(
        "pre_gate must have the shape of x, (2, 2, 5), but has (2, 2, 4)", "pre_gate", lambda p: p[:, :, 1:]
    ),
    refusal("post_gate must have the dtype of x, float32, but has float64", "post_gate", Tensor.double),
    refusal("skip must have shape (2,), one for each channel of x, but has (1,)", "skip", lambda d: d[:1]),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    length = draw(st.integers(1, 400) | st.integers(1, 12))
    return sample(
        "random",
        draw(st.integers(1, 3)),
        draw(st.integers(1, 10)),
        length,
        draw(st.integers(1, 16)),
        keyed=draw(st.booleans()),
        taps=draw(st.integers(1, length)),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        extras=[name for name in ALL if draw(st.booleans())],
        strided=draw(st.booleans()),
        float32=frozenset(name for name in WEIGHTS if draw(st.booleans())),
    )


def transform(row: Tensor) -> Tensor:
    """torch.fft.rfft; by its definition where torch.fft has a large prime to deal with."""
    length = row.shape[-1]
    if length > 2600:
        return torch.fft.rfft(row)
    angle = _angles(length).mT
    return torch.complex(row @ angle.cos(), -(row @ angle.sin()))


def inverse(spectrum: Tensor, length: int) -> Tensor:
    if length > 2600:
        return torch.fft.irfft(spectrum, n=length)
    weights = torch.full((length // 2 + 1, 1), 2 / length, dtype=torch.float64)
    weights[0] = 1 / length
    if length % 2 == 0:
        weights[-1] = 1 / length
    angle = _angles(length)
    return spectrum.real @ (weights * angle.cos()) - spectrum.imag @ (weights * angle.sin())


def _angles(length: int) -> Tensor:
    frequency, position = torch.arange(length // 2 + 1)[:, None], torch.arange(length)
    return (frequency * position % length).double() * (2 * math.pi / length)


def exact(
    x: Tensor,
    query: Tensor,
    key: Tensor | None = None,
    *,
    frequency_filter: Tensor,
    frequency_bias: Tensor | None = None,
    filter: Tensor | None = None,
    layout: str,
    **rest: Any,
) -> Tensor:
    """The filter in time, then the convolution by its definition."""
    if x.numel() == 0:
        return x.clone()
    q, k = (row if row is None or layout == "bdl" else row.mT for row in (query, key))
    length = q.shape[-1]
    spectrum = transform(q).abs() if k is None else transform(k).conj() * transform(q)
    spectrum = frequency_conv(spectrum, frequency_filter, frequency_bias, length)
    h = inverse(spectrum if k is not None else torch.complex(spectrum, torch.zeros_like(spectrum)), length)
    if filter is not None:
        h = h + torch.nn.functional.pad(filter, (0, length - filter.shape[-1]))
    return exact_fft_conv(x, h, mode="circular", layout=layout, **rest)


def of_squares(
    x: Tensor,
    query: Tensor,
    key: Tensor | None = None,
    *,
    frequency_filter: Tensor,
    frequency_bias: Tensor | None = None,
    filter: Tensor | None = None,
    layout: str,
    **rest: Any,
) -> Tensor:
    """A transform mixes all positions: their squares count alike for all frequencies, and so back."""
    if x.numel() == 0:
        return x.clone()
    axis = -1 if layout == "bdl" else -2
    length = x.shape[axis]
    signal = query.sum(axis) if key is None else query.sum(axis) * key.sum(axis)
    spectrum = frequency_filter.sum(-1) * signal
    if frequency_bias is not None:
        spectrum = spectrum + (1 if key is None else 2) * frequency_bias
    taps = (spectrum * (2 / length))[..., None].expand(*spectrum.shape, length)
    if filter is not None:
        taps = taps + torch.nn.functional.pad(filter, (0, length - filter.shape[-1]))
    return exact_fft_conv(x, taps, mode="circular", layout=layout, **rest)


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, str]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    args = (*(tensors.get(name) for name in ARGUMENTS), LAYOUTS[options["layout"]])
    grad_out = torch.randn_like(tensors["x"], requires_grad=True)
    yield torch.ops.equiconv.conditioned_conv.default, args
    backward = torch.ops.equiconv.conditioned_conv_backward.default
    yield backward, (grad_out, *args, *(True,) * 9)
    yield backward, (grad_out, *args, *(i % 2 == 0 for i in range(9)))


class TestContract(contract.Contract):
    op = Op(
        function=conditioned_conv,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("x",), WEIGHTS, ("pre_gate",), ("post_gate",)),
        grown=lambda sizes: {
            "B": sizes["B"] + 2,
            "D": sizes["D"] + 3,
            "L": sizes["L"] + 6,
            "W": sizes["W"] % 15 + 1,
            "K": sizes["K"] + 2,
        },
        weights=WEIGHTS,
        exact=exact,
        of_squares=of_squares,
        dispatched=dispatched,
        devices=("cpu",),
    )

    def test_vmap_over_no_entries(self, tiny: Sample, device: str) -> None:
        """But for the gradient of a magnitude, for which vmap gives PyTorch's FFT no rows, and with MKL it
        fails."""
        if "magnitude" in tiny.name:
            pytest.skip("torch.vmap(torch.fft.rfft) of no entries fails by itself")
        super().test_vmap_over_no_entries(tiny, device)


# ---- what is special about a conditioned filter ------------------------------------------------------------

TYPES = pytest.mark.parametrize("keyed", [False, True], ids=["type-1", "type-2"])


@TYPES
@pytest.mark.parametrize("length", [60, 64, 1000, 1024])
def test_is_the_definition_on_every_device(keyed: bool, length: int, device: str) -> None:
    """On a GPU too, by its kernels (64, 1024) and by the composition (60, 1000)."""
    given = sample("", 2, 3, length, 3, keyed=keyed, extras=ALL)
    contract.check_against_reference(TestContract.op, given, given.make(torch.float32, device))


@TYPES
@pytest.mark.parametrize("layout", ["bdl", "bld"])
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_commutes_with_shifts(keyed: bool, layout: str, device: str, data: st.DataObject) -> None:
    """Exactly but for rounding: any shift, any length."""
    length = data.draw(st.integers(1, 600) | st.sampled_from([1009, 1024, 4096, 8191]))
    shift, width = data.draw(st.integers(0, length)), data.draw(st.integers(1, 16))
    given = sample("", 2, 3, length, width, keyed=keyed, layout=layout, extras=ALL)
    axis = -1 if layout == "bdl" else -2
    for dtype, most in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        tensors = contract.detached(given.make(dtype, device))
        rolled = {k: t.roll(shift, axis) if k in SIGNALS else t for k, t in tensors.items()}
        y = conditioned_conv(**tensors, layout=layout).roll(shift, axis)
        error = (conditioned_conv(**rolled, layout=layout) - y).norm() / y.norm()
        assert error < most


@TYPES
def test_large_rows_have_the_bits_of_small_ones(keyed: bool) -> None:
    """Results of 16 MB and more are stored past the caches; a batch entry alone is not."""
    given = sample("", 2, 512, 4096, keyed=keyed, extras=ALL)
    tensors = given.make(torch.float32, "cpu")
    signals = [name for name in SIGNALS if name in tensors]

    def step(tensors: Mapping[str, Tensor]) -> list[Tensor]:
        y = conditioned_conv(**tensors)
        return [y, *torch.autograd.grad(y, [tensors[name] for name in signals], tensors["x"].detach())]

    large = step(tensors)
    assert large[0].nbytes == 2**24
    for entry in range(2):
        alone = {k: t.detach()[entry : entry + 1] if k in SIGNALS else t for k, t in tensors.items()}
        alone = {k: t.detach().requires_grad_() for k, t in alone.items()}
        contract.assert_same_bits([t[entry : entry + 1] for t in large], step(alone))


@TYPES
def test_filter_does_not_change_when_the_conditioning_signal_is_shifted(keyed: bool, device: str) -> None:
    given = sample("", 2, 3, 31, 5, keyed=keyed, extras=ALL)
    tensors = contract.detached(given.make(torch.float64, device))
    rolled = {k: t.roll(7, -1) if k in ("query", "key") else t for k, t in tensors.items()}
    expected = conditioned_conv(**tensors)
    torch.testing.assert_close(conditioned_conv(**rolled), expected, rtol=1e-12, atol=1e-11)


@TYPES
@pytest.mark.parametrize("length", [1, 2, 7, 8, 256])
def test_is_spectral_conv_with_its_spectrum(keyed: bool, length: int, device: str) -> None:
    tensors = contract.detached(sample("", 2, 3, length, 3, keyed=keyed).make(torch.float64, device))
    q = torch.fft.rfft(tensors["query"])
    a = torch.fft.rfft(tensors["key"]).conj() * q if keyed else q.abs()
    spectrum = frequency_conv(a, tensors["frequency_filter"], None, length)
    expected = spectral_conv(tensors["x"], spectrum)
    torch.testing.assert_close(conditioned_conv(**tensors), expected, rtol=1e-12, atol=1e-10)


def test_a_symmetric_frequency_filter_is_a_window_on_the_correlation(device: str) -> None:
    """With the spectrum continued around its circle, neighbouring frequencies mixed are a factor in time."""
    length, w = 12, torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64, device=device)
    x, q, k = torch.randn(3, 2, 1, length, dtype=torch.float64, device=device)
    correlation = torch.stack([(k * q.roll(-t, -1)).sum(-1) for t in range(length)], -1)
    angle = torch.arange(length, device=device).double() * (2 * math.pi / length)
    expected = fft_conv(x, correlation * (0.5 + 0.5 * angle.cos()), mode="circular")
    torch.testing.assert_close(conditioned_conv(x, q, k, frequency_filter=w), expected)


def test_the_key_may_come_from_another_sequence(device: str) -> None:
    tensors = sample("", 2, 3, 16, keyed=True).make(torch.float64, device)
    same = {**tensors, "key": tensors["query"]}
    assert not torch.allclose(conditioned_conv(**tensors), conditioned_conv(**same))
    squares = torch.fft.rfft(tensors["query"]).abs().square()
    spectrum = frequency_conv(squares, tensors["frequency_filter"], None, 16)
    torch.testing.assert_close(conditioned_conv(**same), spectral_conv(tensors["x"], spectrum))


@pytest.mark.parametrize("length", [1, 5, 8, 256])
def test_magnitudes_of_zero_have_derivative_zero(length: int, device: str) -> None:
    """Of every order."""
    given = sample("", 2, 3, length, extras=ALL).make(torch.float64, device)
    given["query"] = torch.zeros_like(given["query"], requires_grad=True)
    y = conditioned_conv(**given)
    (fused,) = torch.autograd.grad(y.square().sum(), given["query"], retain_graph=True)
    (first,) = torch.autograd.grad(y.square().sum(), given["query"], create_graph=True)
    assert not fused.any()
    assert not first.any()
    (second,) = torch.autograd.grad((first * first.detach().cos()).sum(), given["query"], create_graph=True)
    (third,) = torch.autograd.grad((second * second.detach().cos()).sum(), given["query"])
    assert not second.any()
    assert not third.any()


@TYPES
@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("length", [100, 101, 512])
@pytest.mark.parametrize("where", ["x", "query", "post_gate"])
def test_nan_stays_in_its_row(keyed: bool, layout: str, length: int, where: str, device: str) -> None:
    """In the result, and in the gradients of all signals."""
    extras = ["pre_gate", "post_gate", "skip"]
    given = sample("", 3, 4, length, keyed=keyed, layout=layout, extras=extras)
    tensors = given.make(torch.float32, device)
    clean = contract.value_and_gradients(conditioned_conv, given, tensors)
    with torch.no_grad():
        row = tensors[where] if layout == "bdl" else tensors[where].mT
        row[1, 2, 5] = float("nan")
    poisoned = contract.value_and_gradients(conditioned_conv, given, tensors)
    others = torch.ones(3, 4, dtype=torch.bool, device=device)
    others[1, 2] = False
    results = ("y", *given.tensors)
    for name, a, b in zip(results, poisoned, clean, strict=True):
        if name == "y" or name in SIGNALS:
            a, b = (t if layout == "bdl" else t.mT for t in (a, b))
            contract.assert_same_bits([a[others]], [b[others]])
    assert poisoned[0].isnan().any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("length", [112, 256, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_few_rows_have_the_same_bits_for_any_number_of_threads(
    dtype: torch.dtype, length: int, channels: int
) -> None:
    """Fewer rows than threads or lanes: the threads share the frequencies of a row."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    x, query, grad_out = (draw(1, channels, length) for _ in range(3))
    tensors = [t.requires_grad_() for t in (x, query, draw(channels, 3), draw(channels))]
    results, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            y = conditioned_conv(*tensors[:2], frequency_filter=tensors[2], frequency_bias=tensors[3])
            results.append([y.detach(), *torch.autograd.grad(y, tensors, grad_out)])
        finally:
            torch.set_num_threads(threads)
    for others in results[1:]:
        contract.assert_same_bits(others, results[0])


@TYPES
def test_derivatives_through_the_graph_are_those_of_the_fused_backward(keyed: bool, device: str) -> None:
    given = sample("", 2, 3, 50, 5, keyed=keyed, layout="bld", extras=ALL)
    tensors = given.make(torch.float64, device)
    y = conditioned_conv(**tensors, layout="bld")
    grad_out, wanted = torch.randn_like(y), tuple(tensors.values())
    fused = torch.autograd.grad(y, wanted, grad_out, retain_graph=True)
    graph = torch.autograd.grad(y, wanted, grad_out, create_graph=True)
    assert not any(gradient.requires_grad for gradient in fused)
    assert all(gradient.requires_grad for gradient in graph)
    torch.testing.assert_close(graph, fused, rtol=1e-11, atol=1e-11)


@TYPES
@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize(("length", "width"), [(0, 3), (1, 4), (2, 1), (3, 16), (8, 3), (31, 6)])
def test_through_the_filter_is_the_same(keyed: bool, layout: str, length: int, width: int) -> None:
    """What CUDA tensors take at lengths without kernels, here on a CPU."""
    given = sample("", 2, 3, length, width, keyed=keyed, layout=layout, extras=ALL)
    tensors = contract.detached(given.make(torch.float64, "cpu"))
    args = (*(tensors.get(name) for name in ARGUMENTS), LAYOUTS[layout])
    grad_out, needs = torch.randn_like(tensors["x"]), (True,) * 9
    ours = [_through_filter(*args), *_through_filter_backward(grad_out, *args, *needs)]
    ops = torch.ops.equiconv
    native = [ops.conditioned_conv(*args), *ops.conditioned_conv_backward(grad_out, *args, *needs)]
    torch.testing.assert_close(ours, native, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("fuses", [False, True])
def test_kernels_on_cuda_where_the_library_has_them(monkeypatch: pytest.MonkeyPatch, fuses: bool) -> None:
    """What is called for CUDA tensors, here with stand-ins for the ops of the CUDA library."""
    ops = torch.ops.equiconv
    monkeypatch.setattr(ops, "conditioned_conv_fuses", lambda x, layout: fuses, raising=False)
    monkeypatch.setattr(ops, "conditioned_conv_fused", lambda *args: args, raising=False)
    monkeypatch.setattr(ops, "conditioned_conv_fused_backward", lambda *args: args, raising=False)
    given = sample("", 2, 3, 8, keyed=True, extras=ALL)
    tensors = contract.detached(given.make(torch.float64, "cpu"))
    args = (*(tensors.get(name) for name in ARGUMENTS), LAYOUTS["bdl"])
    grad_out, needs = torch.randn_like(tensors["x"]), (True,) * 9
    forward, backward = _on_cuda(*args), _on_cuda_backward(grad_out, *args, *needs)
    if fuses:
        assert forward == args
        assert backward == (grad_out, *args, *needs)
    else:
        contract.assert_same_bits([forward], [_through_filter(*args)])
        contract.assert_same_bits(backward, _through_filter_backward(grad_out, *args, *needs))


MEMORY = """
import torch
from equiconv import conditioned_conv

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(2)
x, q, k, gate = torch.randn(4, 16, 512, 2048)
w, filter = torch.randn(512, 5), torch.randn(512, 2048)
step = {step}
step()  # whatever is set up once
before = status("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
results = step()
print(status("VmHWM:") - before - sum(r.nbytes for r in results), {allowed})
"""
# What is allowed beyond the results; x has 64 MiB, a row 8 KiB. The gradient of a static filter is summed
# beside its place, that of the frequency filter for each sample.
STEPS = {
    "forward": (
        "lambda: (conditioned_conv(x, q, k, frequency_filter=w, filter=filter, pre_gate=gate),)",
        "2**20",
    ),
    "backward": (
        "lambda: torch.ops.equiconv.conditioned_conv_backward("
        "x, x, q, k, w, None, filter, gate, gate, None, 0, *(True,) * 9)",
        "2**20 + filter.nbytes + 16 * 512 * 7 * 4",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("step", STEPS)
def test_allocates_no_second_signal(step: str) -> None:
    code = MEMORY.format(step=STEPS[step][0], allowed=STEPS[step][1])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    extra, allowed_bytes = map(int, run.stdout.split())
    assert extra < allowed_bytes
