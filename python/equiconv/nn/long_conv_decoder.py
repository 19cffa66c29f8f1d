"""A causal long convolution that is given its input bit by bit: a prompt, then token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.check import HALF, check_floating, check_signal, require, text
from ..ops.fft_conv import fft_conv
from ..ops.long_conv_step import BLOCK
from ..ops.registration import no_autocast
from .long_conv_state import LongConvState


class LongConvDecoder:
    r"""y[t] = post_gate[t] ⊙ (Σ_j filter[j] ⊙ u[t - j] + skip ⊙ u[t]), u = pre_gate ⊙ x, token by token.

        decoder = LongConvDecoder(filter, skip=skip, batch=B)
        y = decoder(prompt)  # (B, P, D), as of fft_conv on all tokens so far
        y = decoder(token)  # (B, 1, D), again and again

    Exact, in O(log² L) operations a token on average and one buffer of (B, L, D); on a CPU the filter is kept
    three times over, in 3 L values a channel.

    Where 2^m is the largest power of two that divides the number of tokens so far, the last 2^m of them are
    convolved with taps 1 … 2^(m + 1) - 1 and added to the sums of the next 2^m positions: each pair of
    positions meets once, in one of these squares (relaxed multiplication, van der Hoeven 2002; for long
    convolutions Oncescu et al., Flash Inference, 2024, arXiv:2410.12982). Several tokens at once are cut into
    the largest aligned blocks, whose inside is one causal convolution.

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
        with torch.inference_mode(False), torch.no_grad():  # else it could not be used outside of it
            self._filter = filter.to(torch.promote_types(filter.dtype, torch.float32), copy=True)
            if skip is not None:
                self._filter[..., 0] += skip
            self._state = LongConvState(self._filter, batch, max_length)

    def reset(self) -> None:
        """Begin new sequences with the same filter."""
        self._state.buffer.zero_()
        self.position = 0

    def __call__(self, x: Tensor, pre_gate: Tensor | None = None, post_gate: Tensor | None = None) -> Tensor:
        """The next tokens' y; x and gates: (B, T, D), any T. Returns the shape and dtype of x.

        The dtype is the filter's, or a half type beside a float32 filter; half results are rounded once.
        """
        self._check(x, pre_gate, post_gate)
        if x.shape[1] == 1:
            y = self._state.tokens(x, pre_gate, post_gate, self.position)
            self.position += 1
            return y
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        first = 0
        while first < x.shape[1]:
            size = self._aligned(x.shape[1] - first)
            part = slice(first, first + size)
            run = self._block if size >= BLOCK else self._state.tokens
            y[:, part] = run(
                x[:, part],
                None if pre_gate is None else pre_gate[:, part],
                None if post_gate is None else post_gate[:, part],
                self.position,
            )
            self.position += size
            first += size
        return y

    def _aligned(self, most: int) -> int:
        """How many of the next `most` tokens are taken at once: a power of two that divides the position,
        or what is less than a block."""
        if self.position % BLOCK or most < BLOCK:
            return min(most, BLOCK - self.position % BLOCK)
        size = 1 << (most.bit_length() - 1)
        return min(size, self.position & -self.position) if self.position else size

    @torch.no_grad()
    def _block(self, x: Tensor, pre_gate: Tensor | None, post_gate: Tensor | None, position: int) -> Tensor:
        """(B, T, D): T tokens, a power of two that divides the position."""
        here = self._state.buffer[:, position : position + x.shape[1]]
        u = x.to(here.dtype) if pre_gate is None else pre_gate.to(here.dtype) * x
        with no_autocast():
            y = fft_conv(u, self._filter[..., : x.shape[1]], mode="causal", layout="bld").add_(here)
        here.copy_(u)
        self._state.square(position + x.shape[1])
        return y if post_gate is None else post_gate * y

    def _check(self, x: Tensor, pre_gate: Tensor | None, post_gate: Tensor | None) -> None:
        batch, channels = self._state.batch, self._filter.shape[-2]
        if (
            x.dtype == self._filter.dtype
            and x.shape == (batch, 1, channels)
            and x.device == self._filter.device
            and self.position < self.max_length
            and pre_gate is post_gate is None
        ):
            return  # a token as it should be
        require(
            x.dim() == 3 and (x.shape[0], x.shape[2]) == (batch, channels),
            lambda: f"{_OP}: x must have shape ({batch}, T, {channels}), but has {tuple(x.shape)}",
        )
        dtype = self._filter.dtype
        allowed = (dtype, *HALF) if dtype == torch.float32 else (dtype,)
        require(
            x.dtype in allowed,
            lambda: (
                f"{_OP}: x must have the dtype of filter, {text(dtype)}"
                f"{', or a half type' if len(allowed) > 1 else ''}, but has {text(x.dtype)}"
            ),
        )
        require(
            x.device == self._filter.device,
            lambda: f"{_OP}: x must be on the device of filter, {self._filter.device}, but is on {x.device}",
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
