"""Long filters, LongConv, and its decoder."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from equiconv import fft_conv
from equiconv.nn import ExplicitFilter, HyenaOperator, ImplicitFilter, LongConv, LongConvDecoder
from equiconv.nn.long_conv_state import widest_square
from equiconv.ops.long_conv_step import BLOCK
from equiconv.reference.fft_conv import fft_conv as reference

# ---- filters -----------------------------------------------------------------------------------------------


def test_implicit_filter_tap_by_tap() -> None:
    """Against the formula, for one tap and channel at a time."""
    D, N, bands, order = 3, 7, 2, 5
    filter = ImplicitFilter(D, N, emb_dim=5, order=order, num_inner=2).double()
    torch.nn.init.uniform_(filter.omega, 5, 15)
    made = filter(N)
    w_in, b_in = filter.input.weight.tolist(), filter.input.bias.tolist()
    omega = filter.omega.tolist()

    def layer(weight: list[list[float]], bias: list[float], h: list[float]) -> list[float]:
        out = [
            sum(w * v for w, v in zip(row, h, strict=True)) + b for row, b in zip(weight, bias, strict=True)
        ]
        return [math.sin(o * v) for o, v in zip(omega, out, strict=True)]

    for i in range(N):
        t = i / (N - 1)
        f = [1e-4 + j * (bands - 1 - 1e-4) / (bands - 1) for j in range(bands)]
        angles = [2 * math.pi * fj * i / N for fj in f]
        h = layer(w_in, b_in, [t, *map(math.cos, angles), *(-math.sin(a) for a in angles)])
        for inner in filter.inner:
            assert isinstance(inner, torch.nn.Linear)
            h = layer(inner.weight.tolist(), inner.bias.tolist(), h)
        for d in range(D):
            delta = math.log(0.01) / 1.5 + d / (D - 1) * (math.log(0.01) / 0.3 - math.log(0.01) / 1.5)
            out = sum(w * v for w, v in zip(filter.output.weight[d].tolist(), h, strict=True))
            expected = out * math.exp(-t * abs(delta))
            # Features and rates are stored in float32.
            assert made[d, i].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_implicit_filter_as_specified_by_default() -> None:
    filter = ImplicitFilter(4, 16)
    assert filter.features.shape == (16, 33)
    assert filter.omega.tolist() == [10.0] * 128
    assert [layer.out_features for layer in filter.inner] == [128]  # type: ignore[union-attr]
    assert filter.output.bias is None
    assert not {"features", "rates"} & set(filter.state_dict())


def test_a_whole_number_is_an_omega() -> None:
    assert torch.equal(ImplicitFilter(4, 16, omega=1).omega, torch.ones(128))


@pytest.mark.parametrize("kind", [ExplicitFilter, ImplicitFilter])
def test_filters_of_shorter_sequences(kind: Callable[..., torch.nn.Module]) -> None:
    one, two = kind(3, 10), kind(3, 10, two_sided=True)
    assert one(10).shape == (3, 10)
    assert two(10).shape == (3, 19)
    torch.testing.assert_close(one(4), one(10)[:, :4])
    torch.testing.assert_close(two(4), two(10)[:, 6:13])
    assert one(0).shape == two(0).shape == (3, 0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ImplicitFilter(2, 8)(9), "ImplicitFilter: length must be at most max_length, 8, but is 9"),
        (lambda: ExplicitFilter(2, 8)(9), "ExplicitFilter: length must be at most max_length, 8, but is 9"),
        (lambda: ExplicitFilter(2, 0), "ExplicitFilter: max_length must be at least 1, but is 0"),
        (
            lambda: ImplicitFilter(2, 8, emb_dim=4),
            "ImplicitFilter: emb_dim must be odd and at least 3, but is 4",
        ),
        (
            lambda: LongConv(2, 8, filter="learned"),
            "LongConv: filter must be implicit, explicit or None, but is learned",
        ),
        (
            lambda: LongConv(2),
            "LongConv: max_length must be given where filter is implicit, but is absent",
        ),
        (
            lambda: LongConv(2, 8)(torch.randn(1, 8, 2), filter=torch.randn(2, 8)),
            "LongConv: filter must be absent where the module has one, but is there",
        ),
        (
            lambda: LongConv(2, filter=None)(torch.randn(1, 8, 2)),
            "LongConv: filter must be given where the module has none, but is absent",
        ),
        (
            lambda: LongConv(2, 8)(torch.randn(8, 2)),
            "LongConv: x must have three axes, but has shape (8, 2)",
        ),
        (
            lambda: LongConv(2, 8, mode="full"),
            "LongConv: mode must be causal, bidirectional or circular, but is full",
        ),
        (
            lambda: LongConv(2, 8, mode="circular").decoder(1),
            "LongConv: mode must be causal where tokens come one by one, but is circular",
        ),
        (
            lambda: LongConv(2, 8).decoder(1, max_length=0),
            "LongConv: max_length must be at least 1, but is 0",
        ),
        (
            lambda: LongConv(2, 8, two_sided=True),
            "LongConv: options must be among emb_dim, order, num_inner, omega where filter is implicit, but "
            "two_sided is there",
        ),
        (
            lambda: LongConv(2, 8, filter="explicit", order=8),
            "LongConv: options must be absent where filter is explicit, but order is there",
        ),
        (
            lambda: LongConv(2, filter=None, order=8),
            "LongConv: options must be absent where filter is None, but order is there",
        ),
    ],
)
def test_modules_refuse(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^") as error:
        call()
    assert str(error.value) == sentence


# ---- LongConv ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["bld", "bdl"])
@pytest.mark.parametrize("mode", ["causal", "bidirectional", "circular"])
@pytest.mark.parametrize("filter", ["implicit", "explicit"])
def test_long_conv_is_the_definition(filter: str, mode: str, layout: str) -> None:
    conv = LongConv(3, 20, filter=filter, mode=mode, layout=layout).double()
    shape = (2, 13, 3) if layout == "bld" else (2, 3, 13)
    x, pre, post = torch.randn(3, *shape, dtype=torch.float64).unbind()
    y = conv(x, pre_gate=pre, post_gate=post)
    assert conv.filter is not None
    expected = reference(
        x, conv.filter(13), pre_gate=pre, post_gate=post, skip=conv.skip, mode=mode, layout=layout
    )
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y.square().sum(), tuple(conv.parameters()))
    others = torch.autograd.grad(expected.square().sum(), tuple(conv.parameters()))
    torch.testing.assert_close(gradients, others)


def test_long_conv_with_a_filter_for_each_sample() -> None:
    conv = LongConv(3, filter=None, skip=False)
    assert not list(conv.parameters())
    x, filter = torch.randn(2, 9, 3), torch.randn(2, 3, 9)
    torch.testing.assert_close(conv(x, filter=filter), reference(x, filter, layout="bld"))
    assert LongConv(3, 5)(x[:, :0]).shape == (2, 0, 3)


def otherwise_ahead(now: int, *signals: Tensor) -> list[Tensor]:
    """The same signals up to `now`, others from there on."""
    return [torch.cat([s[:, :now], torch.randn_like(s[:, now:])], 1) for s in signals]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("length", "bits", "bound"),
    [(40, 32, 0), (1000, 32, 1e-6), (4096, 64, 1e-14)],
)
def test_the_past_does_not_see_the_future(length: int, bits: int, bound: float, given: bool) -> None:
    """Direct sums, as of 40 positions, bit for bit; a transform rounds everything together."""
    dtype = torch.float64 if bits == 64 else torch.float32
    conv = LongConv(4, length, filter=None if given else "implicit").to(dtype)
    filter = torch.randn(2, 4, length, dtype=dtype) / math.sqrt(length) if given else None
    x, gate = torch.randn(2, 2, length, 4, dtype=dtype).unbind()
    now = length // 3
    y = conv(x, filter=filter, pre_gate=gate, post_gate=gate)
    x, gate = otherwise_ahead(now, x, gate)
    changed = conv(x, filter=filter, pre_gate=gate, post_gate=gate)
    assert (y - changed)[:, :now].abs().max() <= bound * y.abs().max()
    assert not torch.equal(y[:, now], changed[:, now])


# ---- the decoder -------------------------------------------------------------------------------------------


def decoded(decoder: LongConvDecoder, sizes: list[int], *signals: Tensor | None) -> Tensor:
    """The result where tokens come in chunks of these sizes, the last of them again and again."""
    x = signals[0]
    assert x is not None
    parts, first = [], 0
    for i in range(x.shape[1]):
        end = min(first + sizes[min(i, len(sizes) - 1)], x.shape[1])
        parts.append(decoder(*(None if s is None else s[:, first:end] for s in signals)))
        first = end
        if first == x.shape[1]:
            break
    return torch.cat(parts, 1)


@pytest.mark.parametrize("sizes", [[1], [300, 1], [1000], [5, 64, 128, 1, 3, 200, 1]], ids=str)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(("length", "taps"), [(1000, 1000), (1000, 150), (777, 65), (513, 1), (1, 1)])
def test_decoding_is_the_whole_convolution(
    length: int, taps: int, per_sample: bool, sizes: list[int]
) -> None:
    for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        filter = torch.randn(2, 3, taps, dtype=dtype) / math.sqrt(taps)
        filter = filter if per_sample else filter[0]
        x, pre, post = torch.randn(3, 2, length, 3, dtype=dtype).unbind()
        skip = torch.randn(3, dtype=dtype)
        decoder = LongConvDecoder(filter, skip=skip, batch=2, max_length=length)
        y = decoded(decoder, sizes, x, pre, post)
        whole = fft_conv(x, filter, pre_gate=pre, post_gate=post, skip=skip, layout="bld")
        assert (y - whole).abs().max() <= bound * whole.abs().max()
        assert decoder.position == length


def test_decoding_4096_tokens() -> None:
    conv = LongConv(8, 4096)
    x = torch.randn(2, 4096, 8)
    decoder = conv.decoder(2)
    y = decoded(decoder, [1], x)
    whole = conv(x)
    assert (y - whole).abs().max() <= 1e-6 * whole.abs().max()
    decoder.reset()
    assert torch.equal(decoded(decoder, [1], x[:, :200]), y[:, :200])


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("chunk", [1, 17, BLOCK])
def test_decoded_past_does_not_see_the_future(chunk: int, given: bool) -> None:
    """Bit for bit, for any length: what is to come has not been there."""
    conv = LongConv(4, 1000, filter=None if given else "implicit")
    filter = torch.randn(2, 4, 1000) if given else None
    x, gate = torch.randn(2, 2, 1000, 4).unbind()
    now = 333 - 333 % chunk
    y = decoded(conv.decoder(2, filter=filter), [chunk], x, gate, gate)
    changed = decoded(conv.decoder(2, filter=filter), [chunk], *otherwise_ahead(now, x, gate, gate))
    assert torch.equal(y[:, :now], changed[:, :now])
    assert not torch.equal(y[:, now], changed[:, now])


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_decoding_half_types(low: torch.dtype) -> None:
    """Computed in float32 and rounded once, as fft_conv."""
    filter, skip = torch.randn(3, 200) / 14, torch.randn(3)
    x, pre, post = torch.randn(3, 2, 200, 3).to(low).unbind()
    y = decoded(LongConvDecoder(filter, skip=skip, batch=2), [1], x, pre, post)
    assert y.dtype == low
    exact = reference(
        *(t.double() for t in (x, filter)),
        pre_gate=pre.double(),
        post_gate=post.double(),
        skip=skip.double(),
        layout="bld",
    )
    rounding = torch.finfo(low).eps / 2
    assert ((y - exact).abs() <= 1.01 * rounding * exact.abs() + 1e-5).all()
    assert LongConvDecoder(filter.to(low), batch=2)(x).dtype == low


def test_squares_are_no_wider_than_there_are_taps() -> None:
    """Half the length at most, and none where all is one block; a square of w reaches 2 w - 1 taps."""
    of_length = {length: widest_square(4096, length) for length in (1, 64, 65, 128, 4096, 5000)}
    assert of_length == {1: 0, 64: 0, 65: 64, 128: 64, 4096: 2048, 5000: 4096}
    of_taps = {taps: widest_square(taps, 4096) for taps in (1, 65, 66, 129, 130, 4096)}
    assert of_taps == {1: 64, 65: 64, 66: 128, 129: 128, 130: 256, 4096: 2048}


def test_decoder_refuses() -> None:
    filter = torch.randn(3, 8)
    decoder = LongConvDecoder(filter, batch=2)
    decoder(torch.randn(2, 7, 3))
    x = torch.randn(2, 1, 3)
    for sentence, call in (
        (
            "LongConvDecoder: x must have at most 1 more tokens where max_length is 8, but has 2",
            lambda: decoder(torch.randn(2, 2, 3)),
        ),
        ("LongConvDecoder: x must have shape (2, T, 3), but has (3, 1, 3)", lambda: decoder(x[[0, 0, 1]])),
        (
            "LongConvDecoder: x must have the dtype of filter, float32, or a half type, but has float64",
            lambda: decoder(x.double()),
        ),
        (
            "LongConvDecoder: x must be on the device of filter, cpu, but is on meta",
            lambda: decoder(x.to("meta")),
        ),
        (
            "LongConvDecoder: pre_gate must have the shape of x, (2, 1, 3), but has (2, 1, 2)",
            lambda: decoder(x, x[..., 1:]),
        ),
        (
            "LongConvDecoder: filter must be (D, Lf) or (B, D, Lf) with a tap, but has shape (3, 0)",
            lambda: LongConvDecoder(filter[:, :0], batch=1),
        ),
        (
            "LongConvDecoder: batch must be given beside a shared filter, but is absent",
            lambda: LongConvDecoder(filter),
        ),
        (
            "LongConvDecoder: batch must be that of filter, 1, but is 2",
            lambda: LongConvDecoder(filter[None], batch=2),
        ),
        (
            "LongConvDecoder: skip must have shape (3,) on the device of filter, cpu, but has (2,) on cpu",
            lambda: LongConvDecoder(filter, batch=2, skip=torch.randn(2)),
        ),
        (
            "LongConvDecoder: max_length must be at least 1, but is 0",
            lambda: LongConvDecoder(filter, batch=2, max_length=0),
        ),
    ):
        with pytest.raises(ValueError, match=r"^") as error:
            call()
        assert str(error.value) == sentence
    decoder(x)
    with pytest.raises(ValueError, match="at most 0 more tokens"):
        decoder(x)


def test_filters_from_the_meta_device() -> None:
    """What no state has is filled by reset_parameters; the rest is loaded."""
    there = LongConv(3, 20, mode="bidirectional")
    with torch.device("meta"):
        conv = LongConv(3, 20, mode="bidirectional")
    conv.to_empty(device="cpu")
    for tensor in (*conv.parameters(), *conv.buffers()):
        tensor.data.fill_(math.nan)
    for module in conv.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert conv.filter is not None
    assert conv.filter(20).isfinite().all()
    conv.load_state_dict(there.state_dict())
    x = torch.randn(2, 20, 3)
    assert torch.equal(conv(x), there(x))


def test_a_decoder_made_in_inference_mode_serves_outside_of_it() -> None:
    hyena, x = HyenaOperator(3, 80), torch.randn(2, 80, 3)
    expected = hyena(x)
    with torch.inference_mode():
        decoder = hyena.decoder(2)
        first = decoder(x[:, :70])
    rest = [decoder(token) for token in x[:, 70:].split(1, 1)]
    torch.testing.assert_close(torch.cat([first, *rest], 1), expected.detach(), rtol=0, atol=1e-5)
    decoder.reset()
    assert decoder.position == 0
    torch.testing.assert_close(decoder(x), expected.detach(), rtol=0, atol=1e-5)


def test_a_bidirectional_convolution_is_exported_with_any_length() -> None:
    conv = LongConv(3, 64, mode="bidirectional")
    length = torch.export.Dim("length", min=2, max=64)
    program = torch.export.export(conv, (torch.randn(2, 16, 3),), dynamic_shapes=({1: length},))
    for size in (2, 16, 33, 64):
        x = torch.randn(2, size, 3)
        torch.testing.assert_close(program.module()(x), conv(x))


def test_decoder_is_exact_under_autocast() -> None:
    filter, x = torch.randn(3, 200), torch.randn(1, 200, 3)
    expected, decoder = fft_conv(x, filter, layout="bld"), LongConvDecoder(filter, batch=1)
    with torch.autocast("cpu", torch.bfloat16):
        for prompt in (1, 130):
            decoder.reset()
            parts = [x[:, :prompt], *x[:, prompt:].split(1, 1)]
            y = torch.cat([decoder(part) for part in parts], 1)
            torch.testing.assert_close(y, expected, rtol=0, atol=2e-5)
