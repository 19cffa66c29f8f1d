"""What decoding token by token costs, against the convolution in one go.

    python -m equiconv.bench.long_conv_decoder

What a call costs whatever its size is measured on one channel of one sequence, where there are as many
calls and little to compute, and taken off. Little is not nothing: on a CPU a channel takes as long as a
vector of them, so the ratio with the calls is given too. All take turns. What it takes to make the decoder,
once for a filter, is in neither.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

import equiconv
from equiconv.nn import LongConvDecoder

from . import harness
from .cli import positive

SIZES = ((1, 256, False), (8, 64, True), (8, 256, False))  # batch, channels, a filter for each sample


def token_by_token(filter: Tensor, x: Tensor) -> Callable[[], None]:
    decoder = LongConvDecoder(filter, batch=len(x))
    tokens = x.split(1, dim=1)  # type: ignore[no-untyped-call]

    def decode() -> None:
        decoder.reset()
        for token in tokens:
            decoder(token)

    return decode


def medians(batch: int, channels: int, per_sample: bool, length: int) -> dict[str, float]:
    """Seconds of decoding, of its calls alone, of making a decoder, and of fft_conv."""
    shape = (batch, channels, length) if per_sample else (channels, length)
    filter = torch.randn(shape) / math.sqrt(length)
    x = torch.randn(batch, length, channels)
    steps = {
        "decode": token_by_token(filter, x),
        "calls": token_by_token(torch.randn(1, length), torch.randn(1, length, 1)),
        "make": lambda: LongConvDecoder(filter, batch=batch),
        "whole": lambda: equiconv.fft_conv(x, filter, layout="bld"),
    }
    with torch.no_grad():
        timings = harness.time_in_turns(steps, seconds=6, rounds=(3, 40))
    return {name: timing.median for name, timing in timings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding against the convolution in one go.")
    parser.add_argument("--length", type=positive, default=4096)
    parser.add_argument("--threads", type=positive, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for batch, channels, per_sample in SIZES:
        seconds = medians(batch, channels, per_sample, options.length)
        decode, calls, make, whole = (seconds[name] for name in ("decode", "calls", "make", "whole"))
        print(
            f"B = {batch}, D = {channels}, {'a filter for each sample' if per_sample else 'shared filter'}: "
            f"whole {whole * 1e3:.1f} ms, token by token {decode * 1e3:.0f} ms, {decode / whole:.1f} times "
            f"as long, without the calls of {calls / options.length * 1e6:.1f} µs "
            f"{(decode - calls) / whole:.1f} times; the decoder is made in {make * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
