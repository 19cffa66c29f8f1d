"""The interfaces of other libraries' long convolutions, computed by :func:`equiconv.fft_conv`.

docs/drop-in.md tells what maps to what. As the originals, they keep the dtypes that are given, under autocast
too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ops.check import FLOATING, HALF, check_floating, one_of, require, text
from .ops.fft_conv import fft_conv
from .ops.pair_basis import no_autocast

__all__ = ["FlashFFTConv", "fftconv", "fftconv_ref"]


class FlashFFTConv(nn.Module):
    """flashfftconv.FlashFFTConv: the first L positions of the circular convolution of period `seqlen`.

        y = postgate ⊙ ifft(fft(pregate ⊙ u, n=seqlen) · fft(k, n=seqlen))[..., :L]

    So with ``seqlen = L`` it is circular, with ``seqlen >= 2 L`` (or L plus the taps of k, less one) causal.

    Args:
        seqlen: any, not only powers of two.
        dtype: of u and the gates; float32 and float64 too.
        use_32_butterfly: has no meaning here.

    The tables in the state of the published module are not missed and not loaded.

    Fu et al., FlashFFTConv, ICLR 2024, arXiv:2311.05908; github.com/HazyResearch/flash-fft-conv.
    """

    def __init__(
        self, seqlen: int, dtype: torch.dtype = torch.float16, use_32_butterfly: bool = True
    ) -> None:
        super().__init__()
        require(seqlen >= 1, lambda: f"FlashFFTConv: seqlen must be at least 1, but is {seqlen}")
        require(
            dtype in FLOATING,
            lambda: f"FlashFFTConv: dtype must be {one_of([*map(text, FLOATING)])}, but is {text(dtype)}",
        )
        self.seqlen = seqlen
        self.dtype = dtype

    def forward(
        self, u: Tensor, k: Tensor, pregate: Tensor | None = None, postgate: Tensor | None = None
    ) -> Tensor:
        """u, gates: (B, H, L) with L up to seqlen, of the module's dtype; k: (H, Lk), here (B, H, Lk) too.

        k is float32 or has the dtype of u; taps from seqlen on are not used. Either gate may be absent.
        Returns the shape and dtype of u.
        """
        op = "FlashFFTConv"
        require(u.dim() == 3, lambda: f"{op}: u must be (B, H, L), but has shape {tuple(u.shape)}")
        require(
            u.dtype == self.dtype,
            lambda: f"{op}: u must have the dtype of the module, {text(self.dtype)}, but has {text(u.dtype)}",
        )
        require(
            u.shape[-1] <= self.seqlen,
            lambda: f"{op}: u must have at most seqlen positions, {self.seqlen}, but has {u.shape[-1]}",
        )
        filter, mode = _taps(k, None, u.shape[-1], self.seqlen)
        with no_autocast(u):
            return fft_conv(u, filter, pre_gate=pregate, post_gate=postgate, mode=mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        """Nothing: tables that a checkpoint has are left where they are."""

    def extra_repr(self) -> str:
        return f"{self.seqlen}, dtype={self.dtype}"


def fftconv(u: Tensor, k: Tensor, D: Tensor) -> Tensor:
    """`fftconv` of Hyena's standalone code: causal convolution plus D ⊙ u, in k's dtype, rounded to u's.

    u: (B, H, L). k: (H, Lk) or (B, H, Lk); taps from 2 L on are not used, and tap j > L is at lag j - 2 L.
    D: (H,). Of u with more axes, (…, H, X, L), k belongs to the third last, and D must broadcast with u once
    it has one axis more.

    Poli et al., Hyena Hierarchy, ICML 2023, arXiv:2302.10866; github.com/HazyResearch/safari.
    """
    return fftconv_ref(u, k, D, None, gelu=False)


def fftconv_ref(
    u: Tensor,
    k: Tensor,
    D: Tensor,
    dropout_mask: Tensor | None,
    gelu: bool = True,
    k_rev: Tensor | None = None,
) -> Tensor:
    """`fftconv_ref` of H3 and Hyena: :func:`fftconv`, then GELU, then each channel times its entry of a mask.

    dropout_mask: (B, H), or None. k_rev: a second filter like k, tap j at lag -j, or None.

    Fu et al., Hungry Hungry Hippos, ICLR 2023, arXiv:2212.14052; github.com/HazyResearch/safari.
    """
    op = "fftconv"
    require(u.dim() >= 3, lambda: f"{op}: u must be (B, H, L), but has shape {tuple(u.shape)}")
    check_floating(op, "u", u)
    check_floating(op, "k", k)
    length = u.shape[-1]
    filter, mode = _taps(k, k_rev, length, 2 * length)
    # Computed in the dtype of k; fft_conv does so by itself where nothing follows before the rounding.
    alone = not gelu and dropout_mask is None and D.dim() == 1 and u.dim() == 3
    x = u if alone and u.dtype in HALF and k.dtype == torch.float32 else u.to(k.dtype)
    with no_autocast(u):
        if u.dim() == 3 and D.dim() == 1:
            out = fft_conv(x, filter, skip=D.to(k.dtype), mode=mode)
        else:
            rows = x if u.dim() == 3 else x.movedim(-3, -2)  # (…, X, H, L)
            y = fft_conv(rows.reshape(-1, *rows.shape[-2:]), filter, mode=mode).view(rows.shape)
            out = (y if u.dim() == 3 else y.movedim(-2, -3)) + x * D.unsqueeze(-1)
    if gelu:
        out = F.gelu(out)
    if dropout_mask is not None:
        out = out * dropout_mask[..., None]
    return out.to(u.dtype)


def _taps(k: Tensor, k_rev: Tensor | None, length: int, period: int) -> tuple[Tensor, str]:
    """The filter and mode of fft_conv that give `length` positions of a circular convolution.

    Tap j of k is at lag j, which is lag j - period too; tap j of k_rev at lag -j.
    """
    if length == 0:
        return k[..., :0], "causal"
    k = k[..., :period]
    if k_rev is None and length == period:
        return k, "circular"
    if k_rev is None and k.shape[-1] <= period - length + 1:
        return k[..., :length], "causal"
    # One period of both filters, then two-sided: lags -(length - 1) … length - 1.
    whole = F.pad(k, (0, period - k.shape[-1]))
    if k_rev is not None:
        reversed = F.pad(k_rev[..., :period], (0, max(period - k_rev.shape[-1], 0)))
        whole = whole + reversed.flip(-1).roll(1, -1)
    return torch.cat([whole[..., period - length + 1 :], whole[..., :length]], -1), "bidirectional"
