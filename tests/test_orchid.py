"""The Orchid mixer and its block, and the Hyena operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equiconv.nn import HyenaOperator, Orchid, OrchidBlock
from equiconv.reference import orchid as reference
from equiconv.reference.fft_conv import fft_conv as reference_conv

SETTINGS: dict[str, dict[str, Any]] = {
    "type-II": {},
    "type-I": {"conditioning": "I"},
    "static": {"conditioning": None},
    "no-static": {"filter": None, "max_length": None},
    "explicit": {"filter": "explicit", "width": 4, "frequency_width": 5},
    "zeros": {"padding": "zeros", "width": 5, "frequency_width": 4},
    "norm": {"norm": True, "conditioning": "I"},
    "residual": {"residual": True, "order": 16, "emb_dim": 5},
}


def made(kind: Callable[..., nn.Module], **setting: Any) -> nn.Module:
    options = {"order": 16} if setting.get("filter", "implicit") == "implicit" else {}
    return kind(**{"channels": 5, "max_length": 40, **options, **setting})


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13, 40])
@pytest.mark.parametrize("setting", SETTINGS)
def test_orchid_is_the_definition(setting: str, length: int) -> None:
    """Values and all gradients, in float64; the definition loads its state."""
    ours, theirs = (made(kind, **SETTINGS[setting]).double() for kind in (Orchid, reference.Orchid))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, length, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    results = []
    for model in (ours, theirs):
        y = model(x)
        assert y.shape == x.shape
        leaves = [x, *model.parameters()]
        results.append([y, *torch.autograd.grad((y * weight).sum(), leaves, materialize_grads=True)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "zeros"])
@pytest.mark.parametrize(
    ("length", "shift"), [(97, 1), (100, 50), (101, 37), (255, 254), (256, 3), (1021, 500)]
)
def test_orchid_is_shift_equivariant(setting: str, length: int, shift: int) -> None:
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        options = dict(SETTINGS[setting])
        if options.get("max_length", 0) is not None:
            options["max_length"] = length
        model = made(Orchid, **options).to(dtype)
        x = torch.randn(2, length, 5, dtype=dtype)
        with torch.no_grad():
            shifted, y = model(x.roll(shift, 1)), model(x).roll(shift, 1)
        assert (shifted - y).abs().max() < bound * y.abs().max()


def test_zero_padding_is_not_shift_equivariant() -> None:
    """The test above can tell."""
    model = made(Orchid, padding="zeros")
    x = torch.randn(2, 40, 5)
    y = model(x).roll(7, 1)
    assert (model(x.roll(7, 1)) - y).abs().max() > 1e-3 * y.abs().max()


def test_conditioning_makes_a_filter_for_each_sample() -> None:
    """One sample's result does not depend on the others', but its filter on its own data."""
    model = made(Orchid)
    x = torch.randn(3, 40, 5)
    y = model(x)
    torch.testing.assert_close(model(x[1:2]), y[1:2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(model(2 * x[1:2]), 8 * y[1:2], rtol=1e-2)


def test_orchid_takes_what_is_empty() -> None:
    model = made(Orchid, residual=True)
    assert model(torch.randn(0, 7, 5)).shape == (0, 7, 5)
    assert model(torch.randn(2, 0, 5)).shape == (2, 0, 5)


@pytest.mark.parametrize("type", ["I", "II"])
def test_orchid_compiles_and_goes_under_autocast(type: str) -> None:
    model = made(Orchid, conditioning=type)
    x = torch.randn(2, 12, 5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - model(x)).abs().max() < 0.05 * model(x).abs().max()


def test_orchid_block_learns() -> None:
    """To sum short sequences up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), OrchidBlock(16, 8, order=16), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        x = torch.randn(16, 8, 4)
        loss = F.mse_loss(model(x), x.cumsum(1) / 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: Orchid(4, 8, mode="causal"),
            "Orchid: mode must be circular, but is causal: its filter is made from the whole sequence, so "
            "every position would see those after it; causal are LongConv and HyenaOperator",
        ),
        (lambda: OrchidBlock(4, 8, mode="causal"), "Orchid: mode must be circular, but is causal: its"),
        (lambda: Orchid(4, 8, causal=True), "Orchid: mode must be circular, but is causal: its"),
        (
            lambda: Orchid(4, 8, conditioning="III"),
            "Orchid: conditioning must be I, II or None, but is III",
        ),
        (lambda: Orchid(4, 8, padding="same"), "Orchid: padding must be circular or zeros, but is same"),
        (lambda: Orchid(4, 8, width=17), "ShortConv: width must be 1 to 16, but is 17"),
        (
            lambda: Orchid(4, 8, frequency_width=0),
            "Orchid: frequency_width must be 1 to 16, but is 0",
        ),
        (
            lambda: Orchid(4, 8, filter="learned"),
            "Orchid: filter must be implicit, explicit or None, but is learned",
        ),
        (
            lambda: Orchid(4, filter=None, conditioning=None),
            "Orchid: filter must be implicit or explicit where conditioning is None, but is None",
        ),
        (lambda: Orchid(4), "Orchid: max_length must be given where there is a filter, but is absent"),
        (
            lambda: Orchid(4, 8)(torch.randn(2, 9, 4)),
            "ImplicitFilter: length must be at most max_length, 8, but is 9",
        ),
        (lambda: Orchid(4, 8)(torch.randn(8, 4)), "Orchid: x must be (B, L, 4), but has shape (8, 4)"),
        (lambda: Orchid(4, 8)(torch.randn(2, 8, 5)), "Orchid: x must be (B, L, 4), but has shape (2, 8, 5)"),
        (
            lambda: Orchid(4, 8, heads=2),
            "Orchid: options must be among emb_dim, order, num_inner, omega where filter is implicit, but "
            "heads is there",
        ),
        (
            lambda: Orchid(4, filter=None, order=8),
            "Orchid: options must be absent where filter is None, but order is there",
        ),
        (
            lambda: HyenaOperator(4, 8)(torch.randn(8, 4)),
            "HyenaOperator: x must be (B, L, 4), but has shape (8, 4)",
        ),
        (
            lambda: HyenaOperator(4, 8, mode="bidirectional"),
            "HyenaOperator: mode must be causal, but is bidirectional",
        ),
        (lambda: HyenaOperator(4, 8, layout="bdl"), "HyenaOperator: layout must be bld, but is bdl"),
        (
            lambda: HyenaOperator(4, 8).decoder(2)(torch.randn(1, 1, 4)),
            "HyenaDecoder: x must have shape (2, T, 4), but has shape (1, 1, 4)",
        ),
    ],
)
def test_refuses(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+: ") as error:
        call()
    assert str(error.value).startswith(sentence)


# ---- Hyena -------------------------------------------------------------------------------------------------


def hyena(model: HyenaOperator, x: Tensor, filter: Tensor) -> Tensor:
    """By torch's convolutions and the definition of fft_conv."""
    z = model.in_linear(x).mT
    taps = model.short_conv.filter.flip(-1)[:, None]
    z = F.conv1d(F.pad(z, (taps.shape[-1] - 1, 0)), taps, model.short_conv.bias, groups=len(taps))
    x0, x1, v = z.chunk(3, 1)
    y = reference_conv(v, filter, pre_gate=x1, post_gate=x0, skip=model.long_conv.skip)
    return model.out_linear(y.mT)  # type: ignore[no-any-return]


@pytest.mark.parametrize("given", [False, True])
def test_hyena_is_the_definition(given: bool) -> None:
    model = HyenaOperator(6, 50, width=4, filter=None if given else "implicit").double()
    x = torch.randn(2, 33, 6, dtype=torch.float64)
    filter = torch.randn(2, 6, 33, dtype=torch.float64) if given else None
    own = filter if model.long_conv.filter is None else model.long_conv.filter(33)
    assert own is not None
    torch.testing.assert_close(model(x, filter=filter), hyena(model, x, own))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("chunks", [[1], [200, 1], [7]], ids=str)
def test_hyena_decodes(chunks: list[int], given: bool) -> None:
    """As the whole sequence; and bit for bit without a look ahead, which is not there."""
    length = 300
    model = HyenaOperator(6, length, filter=None if given else "implicit")
    filter = torch.randn(2, 6, length) / 17 if given else None
    x = torch.randn(2, length, 6)

    def decode(x: Tensor) -> Tensor:
        decoder = model.decoder(2, filter=filter)
        sizes = (chunks + [chunks[-1]] * length)[: length + 1]
        parts = []
        for size in sizes:
            if decoder.position == length:
                break
            parts.append(decoder(x[:, decoder.position : decoder.position + size]))
        return torch.cat(parts, 1)

    y, whole = decode(x), model(x, filter=filter)
    assert (y - whole).abs().max() <= 2e-6 * whole.abs().max()
    now = 210
    other = decode(torch.cat([x[:, :now], torch.randn(2, length - now, 6)], 1))
    assert torch.equal(other[:, :now], y[:, :now])
    assert not torch.equal(other[:, now], y[:, now])


def test_hyena_does_not_see_the_future() -> None:
    """Bit for bit where the convolution is a direct sum, else but for rounding (of the decoder see above)."""
    for length, bound in ((60, 0.0), (1000, 2e-6)):
        model = HyenaOperator(6, length)
        x = torch.randn(2, length, 6)
        now = length // 2
        y = model(x)
        other = model(torch.cat([x[:, :now], torch.randn_like(x[:, now:])], 1))
        assert (other - y)[:, :now].abs().max() <= bound * y.abs().max()
        assert not torch.equal(other[:, now], y[:, now])


def test_a_block_takes_the_network_that_it_is_given() -> None:
    nothing = torch.nn.Sequential()
    assert OrchidBlock(4, 8, mlp=nothing).mlp is nothing
