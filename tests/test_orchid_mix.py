"""Orchid's whole mixer in one op."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import contract
import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from test_conditioned_conv import exact as exact_conditioned_conv
from test_conditioned_conv import of_squares as conditioned_squares
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from equiconv import conditioned_conv, short_conv, short_conv_gated
from equiconv.ops.check import LAYOUTS
from equiconv.ops.orchid_mix import _composition, _composition_backward, orchid_mix
from equiconv.reference.orchid_mix import orchid_mix as reference
from equiconv.reference.short_conv import short_conv as reference_short_conv

ARGUMENTS = (
    "z",
    "short_filter",
    "short_bias",
    "query_filter",
    "query_bias",
    "key_filter",
    "key_bias",
    "frequency_filter",
    "frequency_bias",
    "filter",
    "skip",
)
WEIGHTS = ARGUMENTS[1:]
BIASES = ("short_bias", "query_bias", "key_bias", "frequency_bias")
ALL = (*BIASES, "filter", "skip")


def sample(
    name: str,
    batch: int,
    channels: int,
    length: int,
    taps: tuple[int, int, int] = (3, 3, 3),
    width: int = 3,
    *,
    keyed: bool = False,
    static: int | None = None,
    layout: str = "bld",
    padding: str = "circular",
    extras: Iterable[str] = (),
    **kind: Any,
) -> Sample:
    """taps: of the short filters of streams, query and key. static: of the static filter."""
    shapes = {
        "z": "BLZ" if layout == "bld" else "BZL",
        "short_filter": "ZW",
        "short_bias": "Z",
        "query_filter": "DQ",
        "query_bias": "D",
        "key_filter": "DK",
        "key_bias": "D",
        "frequency_filter": "DF",
        "frequency_bias": "D",
        "filter": "DT",
        "skip": "D",
    }
    given = {"z", "short_filter", "query_filter", "frequency_filter", *extras}
    given = given | {"key_filter"} if keyed else given - {"key_bias"}
    tensors = {key: shapes[key] for key in ARGUMENTS if key in given}
    sizes = dict(zip("WQK", taps, strict=True))
    sizes |= {"B": batch, "D": channels, "Z": 3 * channels, "L": length, "F": width}
    sizes["T"] = static or max(length, 1)
    return Sample(name, tensors, sizes, {"layout": layout, "padding": padding}, **kind)


SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("correlation", 2, 2, 4, (2, 2, 3), 2, keyed=True, static=2, extras=ALL),
    sample("magnitude", 2, 2, 4, (3, 2, 2), 3, static=2, extras=ALL),
    sample("plain-correlation", 2, 2, 5, (2, 3, 2), 4, keyed=True, layout="bdl"),
    sample("zeros", 2, 2, 3, (3, 4, 3), 2, keyed=True, padding="zeros", extras=ALL),
    sample("plain-magnitude", 2, 2, 3, (2, 3, 1), 2, padding="zeros"),
    sample("strided", 1, 2, 4, (2, 2, 2), 2, keyed=True, extras=ALL, strided=True),
    sample("wider-than-long", 1, 1, 3, (7, 16, 4), 5, keyed=True, extras=ALL),
    sample("wider-than-long-zeros", 1, 1, 2, (16, 4, 7), 3, keyed=True, padding="zeros", extras=BIASES),
    sample("one-position", 2, 2, 1, (3, 1, 2), 2, keyed=True, extras=ALL),
    sample("one-position-magnitude", 2, 3, 1, (2, 3, 1), 1, extras=ALL),
    sample("no-batch", 0, 3, 5, keyed=True, extras=ALL),
    sample("no-channels", 2, 0, 5, extras=ALL),
    sample("no-positions", 2, 3, 0, keyed=True, extras=ALL),
    # Larger: values, bits, threads.
    sample("prime", 2, 3, 509, (3, 4, 5), 5, extras=ALL),
    sample("prime-correlation", 2, 3, 509, (16, 3, 2), 5, keyed=True, static=100, extras=ALL),
    sample("twice-a-prime", 3, 2, 502, keyed=True, layout="bdl", extras=ALL),
    sample("power", 2, 3, 1024, (4, 3, 3), 3, extras=ALL),
    sample("power-correlation", 2, 20, 1024, (3, 3, 3), 4, keyed=True, extras=ALL),
    sample("power-zeros", 2, 35, 512, (5, 16, 4), 4, keyed=True, padding="zeros", extras=ALL),
    sample("power-rows", 2, 2, 2048, (3, 5, 1), 16, keyed=True, layout="bdl"),
    sample("power-magnitude", 2, 17, 4096, (3, 3, 3), 5, extras=["short_bias", "query_bias"]),
    # The gradients of query_bias and key_bias would be one number each here, of frequency 0 alone: where that
    # happens to be far below the others of its row, their rounding is all there is of it.
    sample("one-row", 1, 1, 16384, (3, 3, 3), 3, keyed=True, layout="bdl", extras=["filter", "skip"]),
    sample("composite", 3, 2, 2520, (2, 3, 4), 5, padding="zeros", extras=["skip"]),
    sample("odd-composite", 2, 40, 315, (3, 6, 3), 7, keyed=True, extras=ALL),
    sample("power-times-3", 2, 2, 1536, (3, 3, 3), 3, extras=ALL, strided=True),
    sample("many-batches", 70, 2, 24, (3, 2, 3), keyed=True, extras=ALL),
    sample("many-batches-plain", 70, 2, 24, (3, 2, 3)),
    sample("float32-weights", 2, 3, 100, keyed=True, extras=ALL, float32=frozenset(WEIGHTS)),
)


def refusal(sentence: str, name: str | None = None, change: Any = None, **options: Any) -> Refusal:
    return Refusal(f"orchid_mix: {sentence}", {} if name is None else {name: change}, options)


def taps_refusals(name: str, shape: str, channels: int, most: int) -> Iterable[Refusal]:
    beside = "beside z of shape (2, 4, 6)"
    yield refusal(f"{name} must be {shape}, but has shape ({channels},)", name, lambda f: f[:, 0])
    yield refusal(f"{name} must have the dtype of z, float32, but has float64", name, Tensor.double)
    yield refusal(
        f"{name} must be on the device of z, {{device}}, but is on meta", name, lambda f: f.to("meta")
    )
    yield refusal(f"{name} must have {channels} channels {beside}, but has 1", name, lambda f: f[:1])
    yield refusal(f"{name} must have 1 to {most} taps {beside}, but has 0", name, lambda f: f[:, :0])
    yield refusal(
        f"{name} must have 1 to {most} taps {beside}, but has {most + 1}",
        name,
        lambda f: f[:, :1].expand(-1, most + 1),
    )


def channel_refusals(name: str, channels: int) -> Iterable[Refusal]:
    yield refusal(
        f"{name} must have shape ({channels},) beside z of shape (2, 4, 6), but has (1,)",
        name,
        lambda b: b[:1],
    )
    yield refusal(f"{name} must have the dtype of z, float32, but has bfloat16", name, Tensor.bfloat16)


REFUSALS = (
    refusal("padding must be zeros or circular, but is same", padding="same"),
    refusal("layout must be bdl or bld, but is dbl", layout="dbl"),
    refusal("z must be (B, L, 3D), but has shape (4, 6)", "z", lambda z: z[0]),
    refusal("z must be (B, 3D, L), but has shape (4, 6)", "z", lambda z: z[0], layout="bdl"),
    refusal("z must be float32, float64, bfloat16 or float16, but is int64", "z", lambda z: z.long()),
    refusal("z must have three times as many channels as y, but has 5", "z", lambda z: z[..., 1:]),
    *taps_refusals("short_filter", "(3D, W)", 6, 16),
    *taps_refusals("query_filter", "(D, W)", 2, 16),
    *taps_refusals("key_filter", "(D, W)", 2, 16),
    *taps_refusals("frequency_filter", "(D, W)", 2, 16),
    *taps_refusals("filter", "(D, Lf)", 2, 4),
    *channel_refusals("short_bias", 6),
    *channel_refusals("query_bias", 2),
    *channel_refusals("key_bias", 2),
    *channel_refusals("frequency_bias", 2),
    *channel_refusals("skip", 2),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    length = draw(st.integers(1, 400) | st.integers(1, 12))
    return sample(
        "random",
        draw(st.integers(1, 3)),
        draw(st.integers(1, 10)),
        length,
        (draw(st.integers(1, 16)), draw(st.integers(1, 16)), draw(st.integers(1, 16))),
        draw(st.integers(1, 16)),
        keyed=draw(st.booleans()),
        static=draw(st.integers(1, length)),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        padding=draw(st.sampled_from(["circular", "zeros"])),
        extras=[name for name in ALL if draw(st.booleans())],
        strided=draw(st.booleans()),
        float32=frozenset(name for name in WEIGHTS if draw(st.booleans())),
    )


def signals(
    z: Tensor,
    short_filter: Tensor,
    query_filter: Tensor,
    key_filter: Tensor | None = None,
    *,
    short_bias: Tensor | None = None,
    query_bias: Tensor | None = None,
    key_bias: Tensor | None = None,
    padding: str,
    layout: str,
    **_: Any,
) -> dict[str, Tensor]:
    """What the short convolutions make, by conditioned_conv's names."""
    axis = 1 if layout == "bdl" else 2
    streams, condition = (
        ("circular", "circular_centered") if padding == "circular" else ("causal", "centered")
    )

    def conv(x: Tensor, filter: Tensor, bias: Tensor | None, mode: str) -> Tensor:
        return reference_short_conv(x, filter, bias=bias, mode=mode, layout=layout)

    names = ("post_gate", "pre_gate", "x")
    made = dict(zip(names, conv(z, short_filter, short_bias, streams).chunk(3, axis), strict=True))
    w = z.chunk(3, axis)[2]
    made["query"] = conv(w, query_filter, query_bias, condition)
    if key_filter is not None:
        made["key"] = conv(w, key_filter, key_bias, condition)
    return made


def of_conditioned_conv(arguments: Mapping[str, Any]) -> dict[str, Any]:
    names = ("frequency_filter", "frequency_bias", "filter", "skip")
    return {name: arguments[name] for name in names if name in arguments}


def exact(*, padding: str, layout: str, **tensors: Tensor) -> Tensor:
    made = signals(**tensors, padding=padding, layout=layout)
    return exact_conditioned_conv(**made, **of_conditioned_conv(tensors), layout=layout)


def of_squares(*, at: Mapping[str, Tensor], padding: str, layout: str, **squares: Tensor) -> Tensor:
    """The sums of conditioned_conv, and to first order what each short convolution sums."""
    options = {"padding": padding, "layout": layout}
    values = {name: made.square() for name, made in signals(**at, **options).items()}
    fixed = {name: weight.square() for name, weight in of_conditioned_conv(at).items()}
    total = conditioned_squares(**values, **of_conditioned_conv(squares), layout=layout)
    for name, summed in signals(**squares, **options).items():
        total = total + conditioned_squares(**{**values, name: summed}, **fixed, layout=layout)
    return total


def arguments_of(tensors: Mapping[str, Tensor], options: Mapping[str, str]) -> tuple[Any, ...]:
    form = options["padding"] == "circular", LAYOUTS[options["layout"]]
    return *(tensors.get(name) for name in ARGUMENTS), *form


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, str]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    args = arguments_of(tensors, options)
    grad_out = torch.randn_like(tensors["z"].chunk(3, 1 if options["layout"] == "bdl" else 2)[0])
    yield torch.ops.equiconv.orchid_mix.default, args
    backward = torch.ops.equiconv.orchid_mix_backward.default
    yield backward, (grad_out.requires_grad_(), *args, *(True,) * 11)
    yield backward, (grad_out, *args, *(i % 2 == 0 for i in range(11)))


def grown(sizes: Mapping[str, int]) -> dict[str, int]:
    channels = sizes["D"] + 3
    taps = {name: sizes[name] % 15 + 1 for name in "WQKF"}
    more = {"B": sizes["B"] + 2, "L": sizes["L"] + 6, "T": sizes["T"] + 2}
    return {**more, **taps, "D": channels, "Z": 3 * channels}


class TestContract(contract.Contract):
    op = Op(
        function=orchid_mix,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("frequency_filter", "frequency_bias", "filter", "skip"),),
        grown=grown,
        weights=WEIGHTS,
        exact=exact,
        of_squares=of_squares,
        nonlinear=True,
        dispatched=dispatched,
        devices=("cpu",),
    )

    def test_vmap_over_no_entries(self, tiny: Sample, device: str) -> None:
        """But for the gradient of a magnitude, as that of conditioned_conv."""
        if "magnitude" in tiny.name:
            pytest.skip("torch.vmap(torch.fft.rfft) of no entries fails by itself")
        super().test_vmap_over_no_entries(tiny, device)


# ---- what is special about it ------------------------------------------------------------------------------

TYPES = pytest.mark.parametrize("keyed", [False, True], ids=["type-1", "type-2"])
LAYOUT = pytest.mark.parametrize("layout", ["bdl", "bld"])


@TYPES
@LAYOUT
@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize(("length", "width"), [(1, 4), (3, 16), (31, 6), (512, 3)])
def test_is_the_ops_one_after_another(
    keyed: bool, layout: str, padding: str, length: int, width: int
) -> None:
    """Which are what CUDA tensors of lengths without kernels take, here on a CPU, and what a graph of
    derivatives is made of."""
    taps = (min(width, 4), width, 3)
    given = sample("", 2, 3, length, taps, 3, keyed=keyed, layout=layout, padding=padding, extras=ALL)
    tensors = contract.detached(given.make(torch.float64, "cpu"))
    args = arguments_of(tensors, given.options)
    grad_out = torch.randn_like(orchid_mix(**tensors, **given.options))
    ops = torch.ops.equiconv
    for needs in ((True,) * 11, *([i == j for i in range(11)] for j in range(11))):
        ours = ops.orchid_mix_backward(grad_out, *args, *needs)
        torch.testing.assert_close(
            ours, _composition_backward(grad_out, *args, *needs), rtol=1e-11, atol=1e-10
        )
    torch.testing.assert_close(ops.orchid_mix(*args), _composition(*args), rtol=1e-11, atol=1e-11)


def test_is_its_parts(device: str) -> None:
    """By the public functions."""
    given = sample("", 2, 3, 40, (4, 5, 3), 3, keyed=True, extras=ALL)
    t = contract.detached(given.make(torch.float64, device))
    x0, u = short_conv_gated(t["z"], t["short_filter"], bias=t["short_bias"], mode="circular")
    w = t["z"][..., 6:]
    query, key = (
        short_conv(w, t[f"{of}_filter"], bias=t[f"{of}_bias"], mode="circular_centered", layout="bld")
        for of in ("query", "key")
    )
    expected = conditioned_conv(u, query, key, post_gate=x0, layout="bld", **of_conditioned_conv(t))
    torch.testing.assert_close(orchid_mix(**t), expected, rtol=1e-11, atol=1e-11)


@TYPES
@LAYOUT
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_commutes_with_shifts(keyed: bool, layout: str, device: str, data: st.DataObject) -> None:
    """Exactly but for rounding: any shift, any length."""
    length = data.draw(st.integers(1, 600) | st.sampled_from([1009, 1024, 4096]))
    shift, width = data.draw(st.integers(0, length)), data.draw(st.integers(1, 16))
    given = sample("", 2, 3, length, (width, 3, 4), width, keyed=keyed, layout=layout, extras=ALL)
    axis = -1 if layout == "bdl" else -2
    for dtype, most in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        tensors = contract.detached(given.make(dtype, device))
        rolled = {**tensors, "z": tensors["z"].roll(shift, axis)}
        y = orchid_mix(**tensors, layout=layout).roll(shift, axis)
        error = (orchid_mix(**rolled, layout=layout) - y).norm() / y.norm()
        assert error < most


@TYPES
@LAYOUT
@pytest.mark.parametrize("length", [100, 101, 512])
@pytest.mark.parametrize("third", [0, 1, 2])
def test_nan_stays_in_its_row(keyed: bool, layout: str, length: int, third: int, device: str) -> None:
    """In the result, and in the gradient of z."""
    given = sample("", 3, 4, length, keyed=keyed, layout=layout, extras=ALL)
    tensors = given.make(torch.float32, device)
    clean = contract.value_and_gradients(orchid_mix, given, tensors)
    with torch.no_grad():
        rows = tensors["z"] if layout == "bdl" else tensors["z"].mT
        rows[1, 4 * third + 2, 5] = float("nan")
    poisoned = contract.value_and_gradients(orchid_mix, given, tensors)
    others = torch.ones(3, 4, dtype=torch.bool, device=device)
    others[1, 2] = False
    for a, b, streams in zip(poisoned[:2], clean[:2], (1, 3), strict=True):
        a, b = (t if layout == "bdl" else t.mT for t in (a, b))
        contract.assert_same_bits([a[others.repeat(1, streams)]], [b[others.repeat(1, streams)]])
    assert poisoned[0].isnan().any()


@TYPES
@pytest.mark.parametrize("channels", [3, 64, 100])
def test_bits_are_those_of_each_layout(keyed: bool, channels: int, device: str) -> None:
    given = sample("", 2, channels, 512, (3, 4, 2), keyed=keyed, extras=ALL)
    tensors = contract.detached(given.make(torch.float32, device))
    turned = {**tensors, "z": tensors["z"].mT.contiguous()}
    contract.assert_same_bits([orchid_mix(**tensors)], [orchid_mix(**turned, layout="bdl").mT])


def test_refuses_the_bias_of_no_key() -> None:
    tensors = contract.detached(sample("", 2, 2, 5, keyed=True, extras=BIASES).make(torch.float32, "cpu"))
    del tensors["key_filter"]
    sentence = "orchid_mix: key_bias must be absent where there is no key_filter, but is there"
    with pytest.raises(ValueError, match=sentence):
        orchid_mix(**tensors)
    with FakeTensorMode() as mode, pytest.raises(ValueError, match=sentence):
        orchid_mix(**{name: mode.from_tensor(tensor) for name, tensor in tensors.items()})


def test_refuses_another_gradient() -> None:
    given = sample("", 2, 2, 5, keyed=True)
    args = arguments_of(contract.detached(given.make(torch.float32, "cpu")), given.options)
    backward: Callable[..., object] = torch.ops.equiconv.orchid_mix_backward
    for grad_out, sentence in (
        (torch.empty(2, 5, 6), "grad_out must have the shape of y, (2, 5, 2), but has (2, 5, 6)"),
        (
            torch.empty(2, 5, 2, dtype=torch.float64),
            "grad_out must have the dtype of z, float32, but has float64",
        ),
    ):
        with pytest.raises(ValueError, match=r"^orchid_mix: ") as error:
            backward(grad_out, *args, *(True,) * 11)
        assert str(error.value) == f"orchid_mix: {sentence}"


MEMORY = """
import torch
from equiconv.ops.orchid_mix import orchid_mix

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(2)
z, g = torch.randn(16, 2048, 3 * 512), torch.randn(16, 2048, 512)
f, q, k, w, filter = (torch.randn(n, t) for n, t in ((1536, 3), (512, 3), (512, 3), (512, 5), (512, 2048)))
step = {step}
step()  # whatever is set up once
before = status("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
results = step()
print(status("VmHWM:") - before - sum(r.nbytes for r in results), {allowed})
"""
# What is allowed beyond the results; a third of z has 64 MiB, a row 8 KiB. Each of two threads has 32 rows of
# each signal in its cache, and spectra for each. The gradient of a static filter is summed in 4 runs of the
# batch, those of the other weights for each sample.
STEPS = {
    "forward": (
        "lambda: (orchid_mix(z, f, q, k, frequency_filter=w, filter=filter),)",
        "2 * (3 + 1) * 32 * 8192 + 2**20",
    ),
    "backward": (
        "lambda: torch.ops.equiconv.orchid_mix_backward("
        "g, z, f, None, q, None, k, None, w, None, filter, None, True, 1, *(True,) * 11)",
        "2 * (4 + 2) * 32 * 8192 + 2**20 + 4 * filter.nbytes + 16 * 512 * 7 * 4",
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
