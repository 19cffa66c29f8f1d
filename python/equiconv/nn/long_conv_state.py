"""What a LongConvDecoder keeps of its sequences, and how it goes on from there: on a CPU, and elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import long_conv_step
from ..ops.fft_conv import fft_conv
from ..ops.long_conv_step import BLOCK
from ..ops.registration import no_autocast


def _widest(taps: int, max_length: int) -> int:
    """Where a square is wider than this, no tap reaches from the first half of its inputs to its outputs, or
    there is no such square."""
    reach = 1 << max(min(taps, max_length) - 2, 0).bit_length()
    return min(max(BLOCK, reach), 1 << (max_length - 1).bit_length() - 1) if max_length > BLOCK else 0


class CpuState:
    """For kernels of its own, with the taps' spectra made once.

    filter: (D, Lf) or (B, D, Lf). Samples with a filter each are one whose channels are theirs side by side.
    """

    def __init__(self, filter: Tensor, batch: int, max_length: int) -> None:
        rows = filter.reshape(-1, filter.shape[-1]).contiguous()
        together = 1 if filter.dim() == 3 else batch
        length = -(-max_length // BLOCK) * BLOCK
        self.batch = batch
        self._widest = _widest(filter.shape[-1], max_length)
        self._channels = len(rows)
        self._prepared = long_conv_step.prepare(rows, self._widest)
        # Behind the position inputs, ahead of it sums of what has been added so far.
        self._rows = rows.new_zeros(together, length, long_conv_step.padded(len(rows), rows.dtype))
        buffer = self._rows[..., : len(rows)]
        self.buffer = buffer  # (B, L, D)
        if filter.dim() == 3:
            self.buffer = buffer[0].view(length, *filter.shape[:2]).transpose(0, 1)

    def tokens(self, x: Tensor, pre_gate: Tensor | None, post_gate: Tensor | None, position: int) -> Tensor:
        """(B, T, D): T tokens, which begin at `position`."""
        y: Tensor = long_conv_step.step(
            x, pre_gate, post_gate, self._rows, self._prepared, self._widest, position
        )
        return y

    def square(self, position: int) -> None:
        """What a block that ends at `position` brings to as many positions ahead."""
        long_conv_step.square(self._rows, self._prepared, self._channels, self._widest, position)


class ComposedState:
    """Of PyTorch and fft_conv: what positions of one block bring to each other is added one by one, squares
    are two-sided convolutions, which need no padding. A block of 32 or 128 takes as long within a few per
    cent, 16 and 256 longer."""

    def __init__(self, filter: Tensor, batch: int, max_length: int) -> None:
        taps, channels = filter.shape[-1], filter.shape[-2]
        self.batch = batch
        self._widest = _widest(taps, max_length)
        self._filter = F.pad(filter, (0, max(2 * self._widest, BLOCK) - taps)).contiguous()
        self._first = self._filter[..., :BLOCK].mT.contiguous()
        self.buffer = filter.new_zeros(batch, max_length, channels)

    @torch.no_grad()
    def tokens(self, x: Tensor, pre_gate: Tensor | None, post_gate: Tensor | None, position: int) -> Tensor:
        """(B, T, D): T tokens, which begin at `position`."""
        dtype = self.buffer.dtype
        u = x.to(dtype) if pre_gate is None else pre_gate.to(dtype) * x
        y = torch.stack([self._token(u[:, t], position + t) for t in range(u.shape[1])], 1)
        if post_gate is not None:
            y = post_gate * y
        return y.to(x.dtype)

    def _token(self, u: Tensor, here: int) -> Tensor:
        """(B, D): one token, whose contributions to its own block are added at once."""
        rest = min(BLOCK - here % BLOCK, self.buffer.shape[1] - here)
        # narrow and select: indices in brackets take twice as long, and this is called for every token.
        ahead = self.buffer.narrow(1, here, rest)
        ahead.addcmul_(self._first.narrow(-2, 0, rest), u.unsqueeze(1))
        now = ahead.select(1, 0)
        y = now.clone()
        now.copy_(u)
        self.square(here + 1)
        return y

    def square(self, position: int) -> None:
        """What a block that ends at `position` brings to as many positions ahead."""
        width = min(position & -position, self._widest)
        if width < BLOCK or position >= self.buffer.shape[1]:
            return
        ahead = self.buffer[:, position : position + width]
        behind = self.buffer[:, position - width : position]
        taps = self._filter[..., 1 : 2 * width]
        with no_autocast():
            ahead += fft_conv(behind, taps, mode="bidirectional", layout="bld")[:, : ahead.shape[1]]


STATES = {"cpu": CpuState}  # by the type of device; elsewhere: composed
