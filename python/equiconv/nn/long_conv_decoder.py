"""A causal long convolution that is given its input bit by bit: a prompt, then token by token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.check import HALF, check_floating, check_signal, require, text
from ..ops.fft_conv import fft_conv

# What positions of one block bring to each other is added one by one, all else by fft_conv. 32 and 128 take
# as long within a few per cent, 16 and 256 longer.
BLOCK = 64


class LongConvDecoder:
    r"""y[t] = post_gate[t] ⊙ (Σ_j filter[j] ⊙ u[t - j] + skip ⊙ u[t]), u = pre_gate ⊙ x, token by token.

        decoder = LongConvDecoder(filter, skip=skip, batch=B)
        y = decoder(prompt)  # (B, P, D), as of fft_conv on all tokens so far
        y = decoder(token)  # (B, 1, D), again and again

    Exact, in O(log² L) operations a token on average and one buffer of (B, L, D).

    Where 2^m is the largest power of two that divides the number of tokens so far, the last 2^m of them are
    convolved with taps 1 … 2^(m + 1) - 1 and added to the sums of the next 2^m positions: each pair of
    positions meets once, in one of these squares (relaxed multiplication, van der Hoeven 2002; for long
    convolutions Oncescu et al., Flash Inference, 2024, arXiv:2410.12982). Such a square is a two-sided
    convolution of 2^m positions, so it needs no padding. Several tokens at once are cut into the largest
    aligned blocks, whose inside is one causal convolution.

    Args:
        filter: (D, Lf), or (B, D, Lf), one for each sample; float32, float64 or a half type, for which
            everything is computed in float32.
        skip: (D,).
        batch: B; with a filter for each sample it may be left out.
        max_length: of a sequence; None: Lf.

    Nothing is differentiated through; the filter is as it is when the decoder is made.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.
    """

    def __init__(
        self,
        filter: Tensor,
        *,
        skip: Tensor | None = None,
        batch: int | None = None,
        max_length: int | None = None,
    ) -> None:
        check_floating(_OP, "filter", filter)
        require(
            filter.dim() in (2, 3) and filter.shape[-1] >= 1,
            lambda: (
                f"{_OP}: filter must be (D, Lf) or (B, D, Lf) with a tap, but has shape {tuple(filter.shape)}"
            ),
        )
        *samples, channels, taps = filter.shape
        if batch is None:
            require(
                bool(samples), lambda: f"{_OP}: batch must be given beside a shared filter, but is absent"
            )
            batch = samples[0]
        require(
            samples in ([], [batch]),
            lambda: f"{_OP}: batch must be that of filter, {samples[0]}, but is {batch}",
        )
        require(
            skip is None or (skip.shape == (channels,) and skip.device == filter.device),
            lambda: (
                f"{_OP}: skip must have shape ({channels},) on the device of filter, {filter.device}, "
                f"but has {tuple(skip.shape)} on {skip.device}"  # type: ignore[union-attr]
            ),
        )
        max_length = taps if max_length is None else max_length
        require(max_length >= 1, lambda: f"{_OP}: max_length must be at least 1, but is {max_length}")

        self.position = 0  # how many tokens there have been
        self.max_length = max_length
        # Where a square is wider than this, no tap reaches from the first half of its inputs to its outputs.
        self._widest = max(BLOCK, 1 << max(min(taps, max_length) - 2, 0).bit_length())
        dtype = torch.promote_types(filter.dtype, torch.float32)
        with torch.no_grad():
            self._filter = F.pad(filter.to(dtype), (0, 2 * self._widest - taps)).contiguous()
            if skip is not None:
                self._filter[..., 0] += skip
            self._first = self._filter[..., :BLOCK].mT.contiguous()
        # Behind the position inputs, ahead of it sums of what has been added so far.
        self._buffer = filter.new_zeros((batch, max_length, channels), dtype=dtype)

    def reset(self) -> None:
        """Begin new sequences with the same filter."""
        self._buffer.zero_()
        self.position = 0

    @torch.no_grad()
    def __call__(self, x: Tensor, pre_gate: Tensor | None = None, post_gate: Tensor | None = None) -> Tensor:
        """The next tokens' y; x and gates: (B, T, D), any T. Returns the shape and dtype of x.

        The dtype is the filter's, or a half type beside a float32 filter; half results are rounded once.
        """
        self._check(x, pre_gate, post_gate)
        dtype = self._buffer.dtype
        u = x.to(dtype) if pre_gate is None else pre_gate.to(dtype) * x
        if x.shape[1] == 1:
            y = self._token(u.squeeze(1)).unsqueeze(1)
        else:
            y = torch.empty_like(u, memory_format=torch.contiguous_format)
            first = 0
            while first < x.shape[1]:
                size = self._aligned(x.shape[1] - first)
                part = slice(first, first + size)
                y[:, part] = self._block(u[:, part]) if size > 1 else self._token(u[:, first])[:, None]
                first += size
        if post_gate is not None:
            y = post_gate * y
        return y.to(x.dtype)

    def _aligned(self, most: int) -> int:
        """How many of the next `most` tokens are taken at once: a power of two that divides the position."""
        size = 1 << (most.bit_length() - 1)
        if self.position:
            size = min(size, self.position & -self.position)
        return size if size >= BLOCK else 1

    def _token(self, u: Tensor) -> Tensor:
        """(B, D): one token, whose contributions to its own block are added at once."""
        here = self.position
        rest = min(BLOCK - here % BLOCK, self.max_length - here)
        # narrow and select: indices in brackets take twice as long, and this is called for every token.
        ahead = self._buffer.narrow(1, here, rest)
        ahead.addcmul_(self._first.narrow(-2, 0, rest), u.unsqueeze(1))
        now = ahead.select(1, 0)
        y = now.clone()
        now.copy_(u)
        self._advance(1)
        return y

    def _block(self, u: Tensor) -> Tensor:
        """(B, T, D): T tokens, a power of two that divides the position."""
        here = slice(self.position, self.position + u.shape[1])
        taps = self._filter[..., : u.shape[1]]
        y = fft_conv(u, taps, mode="causal", layout="bld").add_(self._buffer[:, here])
        self._buffer[:, here] = u
        self._advance(u.shape[1])
        return y

    def _advance(self, tokens: int) -> None:
        """Go on; where blocks end, add what they bring to as many positions ahead."""
        self.position += tokens
        here = self.position
        width = min(here & -here, self._widest)
        if width < BLOCK or here >= self.max_length:
            return
        ahead = self._buffer[:, here : here + width]
        behind = self._buffer[:, here - width : here]
        taps = self._filter[..., 1 : 2 * width]
        ahead += fft_conv(behind, taps, mode="bidirectional", layout="bld")[:, : ahead.shape[1]]

    def _check(self, x: Tensor, pre_gate: Tensor | None, post_gate: Tensor | None) -> None:
        batch, most, channels = self._buffer.shape
        if (
            x.dtype == self._buffer.dtype
            and x.shape == (batch, 1, channels)
            and x.device == self._buffer.device
            and self.position < most
            and pre_gate is post_gate is None
        ):
            return  # a token as it should be
        require(
            x.dim() == 3 and (x.shape[0], x.shape[2]) == (batch, channels),
            lambda: f"{_OP}: x must have shape ({batch}, T, {channels}), but has {tuple(x.shape)}",
        )
        dtype = self._buffer.dtype
        allowed = (dtype, *HALF) if dtype == torch.float32 else (dtype,)
        require(
            x.dtype in allowed,
            lambda: (
                f"{_OP}: x must have the dtype of filter, {text(dtype)}"
                f"{', or a half type' if len(allowed) > 1 else ''}, but has {text(x.dtype)}"
            ),
        )
        require(
            x.device == self._buffer.device,
            lambda: f"{_OP}: x must be on the device of filter, {self._buffer.device}, but is on {x.device}",
        )
        check_signal(_OP, "pre_gate", pre_gate, x)
        check_signal(_OP, "post_gate", post_gate, x)
        require(
            self.position + x.shape[1] <= self.max_length,
            lambda: (
                f"{_OP}: x must have at most {self.max_length - self.position} more tokens where max_length "
                f"is {self.max_length}, but has {x.shape[1]}"
            ),
        )


_OP = "LongConvDecoder"
