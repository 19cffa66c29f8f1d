"""The interfaces of other libraries, against their definitions in torch.fft."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import equiconv
from equiconv import drop_in
from equiconv.drop_in import FlashFFTConv, fftconv, fftconv_ref

EPS = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    error = (ours.double() - theirs.double()).abs().max()
    assert error <= EPS[ours.dtype] * theirs.abs().max().clamp_min(1e-30)


def flash(u: Tensor, k: Tensor, n: int, pregate: Tensor | None, postgate: Tensor | None) -> Tensor:
    """What FlashFFTConv(n) computes, in float64."""
    x = u.double() if pregate is None else u.double() * pregate.double()
    y = torch.fft.ifft(torch.fft.fft(x, n=n) * torch.fft.fft(k.double(), n=n), n=n).real[..., : u.shape[-1]]
    return (y if postgate is None else y * postgate.double()).to(u.dtype)


def hyena(
    u: Tensor, k: Tensor, D: Tensor, mask: Tensor | None, gelu: bool, k_rev: Tensor | None = None
) -> Tensor:
    """What fftconv_ref computes, in float64."""
    n = 2 * u.shape[-1]
    spectrum = torch.fft.rfft(k.double(), n=n)
    if k_rev is not None:
        spectrum = spectrum + torch.fft.rfft(k_rev.double(), n=n).conj()
    if u.dim() > 3:
        spectrum = spectrum[:, None]
    y = torch.fft.irfft(torch.fft.rfft(u.double(), n=n) * spectrum, n=n)[..., : u.shape[-1]]
    y = y + u.double() * D.double()[..., None]
    y = F.gelu(y) if gelu else y
    return (y if mask is None else y * mask.double()[..., None]).to(u.dtype)


@pytest.mark.parametrize("gates", ["none", "both", "pre", "post"])
@pytest.mark.parametrize(
    ("seqlen", "length", "taps"),
    [
        (64, 64, 64),  # circular
        (64, 64, 20),
        (64, 32, 32),  # causal
        (64, 32, 33),
        (300, 100, 201),
        (64, 32, 64),  # wraps
        (40, 33, 25),
        (101, 97, 101),
        (64, 32, 100),  # taps beyond the period
        (64, 64, 100),
        (4, 1, 4),
        (1, 1, 1),
    ],
)
def test_flash_fft_conv(seqlen: int, length: int, taps: int, gates: str) -> None:
    for dtype in EPS:
        u, pre, post = torch.randn(3, 2, 3, length).to(dtype).unbind()
        pregate = pre if gates in ("both", "pre") else None
        postgate = post if gates in ("both", "post") else None
        k = torch.randn(3, taps, dtype=dtype if dtype == torch.float64 else torch.float32)
        y = FlashFFTConv(seqlen, dtype=dtype)(u, k, pregate, postgate)
        close(y, flash(u, k, seqlen, pregate, postgate))


@pytest.mark.parametrize(("seqlen", "length", "taps"), [(12, 12, 12), (12, 6, 6), (12, 8, 12)])
def test_gradients_of_flash_fft_conv(seqlen: int, length: int, taps: int) -> None:
    u, pre, post = torch.randn(3, 2, 3, length, dtype=torch.float64).unbind()
    leaves = [t.requires_grad_() for t in (u, torch.randn(3, taps, dtype=torch.float64), pre, post)]
    module = FlashFFTConv(seqlen, dtype=torch.float64)
    weight = torch.randn_like(u)
    ours = torch.autograd.grad((module(*leaves) * weight).sum(), leaves)
    theirs = torch.autograd.grad(
        (flash(leaves[0], leaves[1], seqlen, leaves[2], leaves[3]) * weight).sum(), leaves
    )
    torch.testing.assert_close(ours, theirs)


def test_flash_fft_conv_takes_a_filter_for_each_sample_and_odd_calls() -> None:
    u, k = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    module = FlashFFTConv(16, torch.float32)
    close(module(u, k), flash(u, k, 16, None, None))
    assert module(u[..., :0], k).shape == (2, 3, 0)
    # A checkpoint of the published module has tables.
    tables = {"conv.f_sqrt_N_fft": torch.randn(4), "conv.twid": torch.randn(4)}
    torch.nn.ModuleDict({"conv": module}).load_state_dict(tables)
    assert not module.state_dict()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("taps", [10, 33, 50, 66])
def test_hyenas_fftconv(taps: int, gelu: bool, mask: bool, reverse: bool) -> None:
    length = 33
    for dtype in EPS:
        u = torch.randn(2, 3, length).to(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        k, k_rev, D = torch.randn(3, taps, dtype=wide), torch.randn(3, taps, dtype=wide), torch.randn(3)
        dropout = torch.rand(2, 3) if mask else None
        k_rev = k_rev if reverse else None
        close(fftconv_ref(u, k, D, dropout, gelu, k_rev), hyena(u, k, D, dropout, gelu, k_rev))
        if not (gelu or mask or reverse):
            close(fftconv(u, k, D), hyena(u, k, D, None, False))


def test_hyenas_fftconv_with_more_axes_and_dtypes() -> None:
    """(B, H, X, L), as of H3's heads, and the five axes of Hyena's operator."""
    u, k = torch.randn(2, 3, 4, 10), torch.randn(3, 10)
    D = torch.randn(3, 1)
    close(fftconv(u, k, D), hyena(u, k, D, None, False))
    u, D = torch.randn(2, 1, 3, 1, 10), torch.randn(1, 3, 1)
    close(fftconv(u, k, D), hyena(u, k, D, None, False))
    u, D = torch.randn(2, 3, 10, dtype=torch.bfloat16), torch.randn(3)
    close(fftconv_ref(u, k.double(), D, None), hyena(u, k, D, None, True))
    u = torch.randn(2, 3, 10)  # computed in float64, as k is
    close(fftconv(u, k.double(), D), hyena(u, k.double(), D, None, False))
    assert fftconv(torch.randn(2, 3, 0), k, torch.randn(3)).shape == (2, 3, 0)


def test_autocast_changes_nothing() -> None:
    u, k, D = torch.randn(2, 3, 32), torch.randn(3, 32), torch.randn(3)
    calls = (
        lambda: fftconv(u, k, D),
        lambda: fftconv_ref(u, k, D, None, k_rev=k),
        lambda: fftconv(u[:, :, None], k, D[:, None]),
        lambda: fftconv(u.bfloat16(), k, D),
        lambda: FlashFFTConv(64, torch.float32)(u, k, u, u),
        lambda: FlashFFTConv(64, torch.float16)(u.half(), k),
    )
    for call in calls:
        plain = call()
        with torch.autocast("cpu", torch.bfloat16):
            cast = call()
        assert cast.dtype == plain.dtype
        assert torch.equal(cast, plain)


@pytest.mark.parametrize("name", drop_in.__all__)
def test_all_are_documented(name: str) -> None:
    assert getattr(equiconv.drop_in, name).__doc__


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: FlashFFTConv(0), "FlashFFTConv: seqlen must be at least 1, but is 0"),
        (
            lambda: FlashFFTConv(8, torch.int64),
            "FlashFFTConv: dtype must be float32, float64, bfloat16 or float16, but is int64",
        ),
        (
            lambda: FlashFFTConv(8)(torch.randn(1, 2, 8), torch.randn(2, 8)),
            "FlashFFTConv: u must have the dtype of the module, float16, but has float32",
        ),
        (
            lambda: FlashFFTConv(8, torch.float32)(torch.randn(1, 2, 9), torch.randn(2, 8)),
            "FlashFFTConv: u must have at most seqlen positions, 8, but has 9",
        ),
        (
            lambda: FlashFFTConv(8, torch.float32)(torch.randn(2, 8), torch.randn(2, 8)),
            "FlashFFTConv: u must be (B, H, L), but has shape (2, 8)",
        ),
        (
            lambda: fftconv(torch.randn(2, 8), torch.randn(2, 8), torch.randn(2)),
            "fftconv: u must be (B, H, L), but has shape (2, 8)",
        ),
        (
            lambda: fftconv(torch.ones(1, 2, 8).long(), torch.randn(2, 8), torch.randn(2)),
            "fftconv: u must be float32, float64, bfloat16 or float16, but is int64",
        ),
    ],
)
def test_refuses(call: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^") as error:
        call()  # type: ignore[operator]
    assert str(error.value) == sentence
