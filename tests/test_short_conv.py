from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.short_conv import short_conv as on_emulator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from equiconv import short_conv
from equiconv.nn import ShortConv
from equiconv.ops.check import LAYOUTS
from equiconv.ops.short_conv import ACTIVATIONS, SHORT_MODES
from equiconv.reference import short_conv as reference


def sample(
    name: str,
    batch: int,
    channels: int,
    length: int,
    taps: int,
    mode: str = "causal",
    *,
    layout: str = "bdl",
    bias: bool = True,
    activation: str | None = None,
    **kind: Any,
) -> Sample:
    tensors = {"x": layout.upper(), "filter": "DK", **({"bias": "D"} if bias else {})}
    sizes = {"B": batch, "D": channels, "L": length, "K": taps}
    options = {"mode": mode, "layout": layout}
    if activation:
        options["activation"] = activation
    return Sample(name, tensors, sizes, options, **kind)


FLOAT32 = frozenset(["filter", "bias"])


def samples(activations: Iterable[str | None]) -> tuple[Sample, ...]:
    """The same shapes for every activation in turn."""
    turn = [*activations]

    def next_one() -> dict[str, Any]:
        turn.append(turn.pop(0))
        return {"activation": turn[-1]}

    return (
        # Small: also differentiated to every order and compiled.
        sample("causal", 2, 2, 6, 4, **next_one()),
        sample("centered", 2, 3, 5, 4, "centered", layout="bld", **next_one()),
        sample("circular", 2, 2, 5, 3, "circular", bias=False, **next_one()),
        sample("strided", 2, 3, 4, 3, "circular_centered", layout="bld", strided=True, **next_one()),
        sample("strided-rows", 1, 2, 6, 5, "centered", strided=True, **next_one()),
        sample("wider-than-long", 2, 2, 3, 7, layout="bld", **next_one()),
        sample("wider-circular", 1, 3, 2, 7, "circular_centered", **next_one()),
        sample("wider-circular-columns", 1, 3, 2, 16, "circular", layout="bld", **next_one()),
        sample("one-tap", 2, 2, 4, 1, "centered", layout="bld", **next_one()),
        sample("one-position", 2, 3, 1, 2, **next_one()),
        sample("no-batch", 0, 3, 5, 4, **next_one()),
        sample("no-channels", 2, 0, 5, 5, "circular", layout="bld", **next_one()),
        sample("no-positions", 2, 3, 0, 2, "centered", **next_one()),
        # Larger: values, bits, threads. Sizes that fill vectors, blocks and strips, and one off.
        sample("columns", 3, 64, 70, 4, layout="bld", **next_one()),
        sample("columns-odd", 2, 37, 53, 5, "centered", layout="bld", **next_one()),
        sample("columns-wide", 1, 1100, 40, 3, "circular", layout="bld", bias=False, **next_one()),
        sample("columns-long", 2, 24, 600, 16, "circular_centered", layout="bld", **next_one()),
        sample("rows", 2, 5, 1024, 4, **next_one()),
        sample("rows-odd", 3, 19, 157, 3, "circular", **next_one()),
        sample("rows-long", 1, 2, 5001, 16, "centered", **next_one()),
        sample("rows-long-circular", 2, 1, 3000, 7, "circular_centered", bias=False, **next_one()),
        sample("strided-long", 2, 9, 300, 6, "circular", strided=True, layout="bld", **next_one()),
        sample("float32-weights", 2, 16, 90, 4, layout="bld", float32=FLOAT32, **next_one()),
        sample("float32-weights-rows", 2, 3, 90, 5, "centered", float32=FLOAT32, **next_one()),
    )


REFUSALS = (
    Refusal(
        "short_conv: mode must be causal, centered, circular or circular_centered, but is same",
        options={"mode": "same"},
    ),
    Refusal("short_conv: layout must be bdl or bld, but is dbl", options={"layout": "dbl"}),
    Refusal("short_conv: x must be (B, D, L), but has shape (2, 6)", {"x": lambda x: x[0]}),
    Refusal(
        "short_conv: x must be (B, L, D), but has shape (2, 6)",
        {"x": lambda x: x[0]},
        options={"layout": "bld"},
    ),
    Refusal("short_conv: filter must be (D, W), but has shape (4,)", {"filter": lambda k: k[0]}),
    Refusal("short_conv: filter must be (D, W), but has shape (2, 4, 1)", {"filter": lambda k: k[..., None]}),
    Refusal(
        "short_conv: filter must have the dtype of x, float32, but has float16",
        {"filter": lambda k: k.half()},
    ),
    Refusal(
        "short_conv: filter must have the dtype of x, bfloat16, or float32, but has float64",
        {"x": lambda x: x.bfloat16(), "filter": lambda k: k.double()},
    ),
    Refusal("short_conv: filter must have the channels of x, 2, but has 1", {"filter": lambda k: k[:1]}),
    Refusal(
        "short_conv: filter must have the channels of x, 6, but has 2",  # the layout is another one
        options={"layout": "bld"},
    ),
    Refusal("short_conv: filter must have 1 to 16 taps, but has 0", {"filter": lambda k: k[:, :0]}),
    Refusal(
        "short_conv: filter must have 1 to 16 taps, but has 17",
        {"filter": lambda k: k[:, :1].expand(-1, 17)},
    ),
    Refusal(
        "short_conv: filter must be on the device of x, {device}, but is on meta",
        {"filter": lambda k: k.to("meta")},
    ),
    Refusal(
        "short_conv: bias must have shape (2,), one for each channel of x, but has (1,)",
        {"bias": lambda b: b[:1]},
    ),
    Refusal(
        "short_conv: bias must have shape (2,), one for each channel of x, but has (2, 1)",
        {"bias": lambda b: b[:, None]},
    ),
    Refusal("short_conv: bias must have the dtype of x, float32, but has int32", {"bias": lambda b: b.int()}),
)
OF_COMPLEX = (
    Refusal(
        "short_conv: x must be float32, float64, bfloat16, float16, complex64 or complex128, but is int64",
        {"x": lambda x: x.long()},
    ),
    Refusal(
        "short_conv: filter must have the dtype of x's real parts, float32, but has float64",
        {"x": lambda x: x.to(torch.complex64), "filter": lambda k: k.double()},
    ),
)


@st.composite
def random_samples(draw: st.DrawFn, activations: tuple[str | None, ...]) -> Sample:
    return sample(
        "random",
        draw(st.integers(1, 3)),
        draw(st.integers(1, 6) | st.integers(1, 70)),
        draw(st.integers(1, 12) | st.integers(1, 400)),
        draw(st.integers(1, 16)),
        draw(st.sampled_from(SHORT_MODES)),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        bias=draw(st.booleans()),
        activation=draw(st.sampled_from(activations)),
        strided=draw(st.booleans()),
        float32=frozenset(name for name in FLOAT32 if draw(st.booleans())),
    )


def form_of(options: Mapping[str, Any], filter: Tensor) -> tuple[bool, int, int]:
    mode = options["mode"]
    ahead = filter.shape[1] // 2 if mode.endswith("centered") else 0
    return mode.startswith("circular"), ahead, LAYOUTS[options["layout"]]


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    arguments = (tensors["x"], tensors["filter"], tensors.get("bias"))
    form = form_of(options, tensors["filter"])
    grad_out = torch.randn_like(tensors["x"], requires_grad=True)
    op, backward = torch.ops.equiconv.short_conv.default, torch.ops.equiconv.short_conv_backward.default
    if "activation" in options:
        form = (ACTIVATIONS[options["activation"]], *form)  # type: ignore[assignment]
        op = torch.ops.equiconv.short_conv_activated.default
        backward = torch.ops.equiconv.short_conv_activated_backward.default
    yield op, (*arguments, *form)
    yield backward, (grad_out, *arguments, *form, True, True, True)
    yield backward, (grad_out, *arguments, *form, False, True, False)


def grown(sizes: Mapping[str, int]) -> dict[str, int]:
    return {"B": sizes["B"] + 2, "D": sizes["D"] + 3, "L": sizes["L"] + 5, "K": sizes["K"]}


COMMON: dict[str, Any] = {
    "function": short_conv,
    "reference": reference.short_conv,
    "exact": reference.short_conv,
    "grown": grown,
    "weights": ("filter", "bias"),
    "dispatched": dispatched,
    "on_emulator": on_emulator,
}


class TestContract(contract.Contract):
    op = Op(
        **COMMON,
        samples=samples([None]),
        refusals=(*REFUSALS, *OF_COMPLEX),
        random=random_samples((None,)),
        groups=(("x", "bias"), ("filter", "bias")),
        of_squares=reference.short_conv,  # the op sums products of the arguments' entries
    )


# ---- against PyTorch's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 8, 15, 16])
@pytest.mark.parametrize("bias", [False, True])
def test_is_conv1d(taps: int, bias: bool, device: str) -> None:
    """The causal form is a padding on the left, the centered ones are padding="same", taps turned round."""
    x = torch.randn(2, 6, 20, dtype=torch.float64, device=device)

    def conv(**options: Any) -> torch.nn.Conv1d:
        return torch.nn.Conv1d(6, 6, taps, groups=6, bias=bias, dtype=torch.float64, device=device, **options)

    for layer, mode in (
        (conv(padding=taps - 1), "causal"),
        (conv(padding="same"), "centered"),
        (conv(padding="same", padding_mode="circular"), "circular_centered"),
    ):
        for layout in ("bdl", "bld"):
            ours = ShortConv.from_conv1d(layer, mode=mode, layout=layout)
            y = ours(x) if layout == "bdl" else ours(x.mT).mT
            torch.testing.assert_close(y, layer(x)[..., :20])


def test_layer_begins_as_conv1d() -> None:
    torch.manual_seed(0)
    layer, conv = ShortConv(4000, 4), torch.nn.Conv1d(4000, 4000, 4, groups=4000)
    assert conv.bias is not None
    assert layer.bias is not None
    for ours, theirs in ((layer.filter, conv.weight[:, 0]), (layer.bias, conv.bias)):
        assert ours.shape == theirs.shape
        assert 0.49 < ours.abs().max() <= 0.5
        assert abs(ours.std() - theirs.std()) < 0.01
    assert ShortConv(3, bias=False).bias is None


def test_layer_refuses() -> None:
    with pytest.raises(ValueError, match=r"^ShortConv: width must be 1 to 16, but is 17$"):
        ShortConv(4, 17)
    with pytest.raises(ValueError, match=r"^ShortConv: conv must have as many groups as channels, stride 1"):
        ShortConv.from_conv1d(torch.nn.Conv1d(4, 4, 3))
    for options, sentence in (
        ({"activation": "swish"}, "activation must be silu, gelu or None, but is swish"),
        ({"mode": "foo"}, "mode must be causal, centered, circular or circular_centered, but is foo"),
        ({"layout": "dbl"}, "layout must be bdl or bld, but is dbl"),
    ):
        with pytest.raises(ValueError, match=f"^ShortConv: {sentence}$"):
            ShortConv(4, 3, **options)


@pytest.mark.parametrize("mode", ["circular", "circular_centered"])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_shifts_with_its_argument(mode: str, length: int, device: str) -> None:
    x, k = torch.randn(2, 5, length, device=device), torch.randn(5, 4, device=device)
    for shift in (1, 3, -2):
        shifted = short_conv(x.roll(shift, -1), k, mode=mode)
        contract.assert_same_bits([shifted], [short_conv(x, k, mode=mode).roll(shift, -1)])


def test_does_not_see_the_future(device: str) -> None:
    x, k = torch.randn(2, 50, 7, device=device), torch.randn(7, 5, device=device)
    changed = x.clone()
    changed[:, 30:] = float("nan")
    y, other = (short_conv(t, k, layout="bld", activation="gelu") for t in (x, changed))
    contract.assert_same_bits([other[:, :30]], [y[:, :30]])


def test_layouts_have_the_same_bits(device: str) -> None:
    x, k, b = (torch.randn(s, device=device) for s in ((3, 40, 70), (40, 6), (40,)))
    for mode in SHORT_MODES:
        rows = short_conv(x, k, bias=b, mode=mode, activation="silu")
        columns = short_conv(x.mT.contiguous(), k, bias=b, mode=mode, activation="silu", layout="bld")
        contract.assert_same_bits([columns.mT], [rows])


# ---- sizes, numbers, subnormals ---------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strides_beyond_32_bits(axis: int, device: str) -> None:
    step = [500, 100, 1]
    step[axis] = 2**31 // 8 if axis == 2 else 2**31 + 64
    shape = (2, 2, 9) if axis == 2 else (2, 2, 100)
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, step, strict=True))
    x = torch.empty(span, dtype=torch.bfloat16, device=device).as_strided(shape, step)
    x.copy_(torch.randn(shape))
    for layout, channels in (("bdl", 2), ("bld", shape[2])):
        k = torch.randn(channels, 3, dtype=torch.bfloat16, device=device)
        expected = short_conv(x.contiguous(), k, layout=layout)
        contract.assert_same_bits([short_conv(x, k, layout=layout)], [expected])


def test_more_than_2_to_the_31_elements_traced() -> None:
    x = torch.empty(2**20, 64, 64, device="meta")
    assert short_conv(x, torch.empty(64, 4, device="meta")).numel() == 2**32


def test_gradient_of_an_expanded_sum(device: str) -> None:
    """A sum's gradient is one number, expanded."""
    for layout in ("bdl", "bld"):
        x = torch.randn(2, 20, 20, device=device, requires_grad=True)
        k = torch.randn(20, 3, device=device, requires_grad=True)
        ours = torch.autograd.grad(short_conv(x, k, layout=layout).sum(), (x, k))
        theirs = torch.autograd.grad(reference.short_conv(x, k, layout=layout).sum(), (x, k))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("traced", [False, True])
def test_refuses_unknown_numbers(traced: bool, device: str) -> None:
    """The dispatcher ops, which programs can call themselves, have numbers for what has names."""
    with FakeTensorMode() if traced else contextlib.nullcontext():
        x, k = torch.empty(2, 3, 8, device=device), torch.empty(3, 4, device=device)
        for ahead in (-1, 4):
            with pytest.raises(ValueError, match=rf"^short_conv: ahead must be 0 to 3, but is {ahead}$"):
                torch.ops.equiconv.short_conv(x, k, None, False, ahead, 0)
        with pytest.raises(
            ValueError, match=r"^short_conv: layout must be 0 \(bdl\) or 1 \(bld\), but is 2$"
        ):
            torch.ops.equiconv.short_conv(x, k, None, False, 0, 2)
        with pytest.raises(ValueError, match=r"activation must be 0 \(None\), 1 \(silu\) or 2 \(gelu\), but"):
            torch.ops.equiconv.short_conv_activated(x, k, None, 3, False, 0, 0)
