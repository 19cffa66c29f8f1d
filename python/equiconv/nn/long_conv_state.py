"""What a LongConvDecoder keeps of its sequences."""

from __future__ import annotations

from torch import Tensor

from ..ops import long_conv_step
from ..ops.long_conv_step import BLOCK


def widest_square(taps: int, max_length: int) -> int:
    """Where a square is wider than this, no tap reaches from the first half of its inputs to its outputs, or
    there is no such square."""
    reach = 1 << max(min(taps, max_length) - 2, 0).bit_length()
    return min(max(BLOCK, reach), 1 << (max_length - 1).bit_length() - 1) if max_length > BLOCK else 0


class LongConvState:
    """For the op's kernels, with the taps as these want them.

    filter: (D, Lf) or (B, D, Lf). Samples with a filter each are one whose channels are theirs side by side.
    """

    def __init__(self, filter: Tensor, batch: int, max_length: int) -> None:
        rows = filter.reshape(-1, filter.shape[-1]).contiguous()
        together = 1 if filter.dim() == 3 else batch
        length = -(-max_length // BLOCK) * BLOCK
        self.batch = batch
        self._widest = widest_square(filter.shape[-1], max_length)
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
