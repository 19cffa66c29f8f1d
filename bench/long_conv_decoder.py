"""What decoding token by token costs, against the convolution in one go.

    python -m equiconv.bench.long_conv_decoder

What a call costs whatever its size is measured on one channel of one sequence, where there are as many calls
and next to nothing to compute, and taken off.
"""

from __future__ import annotations

import argparse
import math

import torch

import equiconv
from equiconv.nn import LongConvDecoder

from . import harness
from .cli import positive

SIZES = ((1, 256, False), (8, 64, True), (8, 256, False))  # batch, channels, a filter for each sample


def seconds(batch: int, channels: int, per_sample: bool, length: int) -> tuple[float, float]:
    """Of decoding and of fft_conv."""
    shape = (batch, channels, length) if per_sample else (channels, length)
    filter = torch.randn(shape) / math.sqrt(length)
    x = torch.randn(batch, length, channels)
    tokens = x.split(1, dim=1)  # type: ignore[no-untyped-call]
    decoder = LongConvDecoder(filter, batch=batch)

    def decode() -> None:
        decoder.reset()
        for token in tokens:
            decoder(token)

    steps = {"decode": decode, "whole": lambda: equiconv.fft_conv(x, filter, layout="bld")}
    with torch.no_grad():
        timings = harness.time_in_turns(steps, seconds=3, rounds=(3, 20))
    return timings["decode"].median, timings["whole"].median


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding against the convolution in one go.")
    parser.add_argument("--length", type=positive, default=4096)
    parser.add_argument("--threads", type=positive, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    calls, _ = seconds(1, 1, False, options.length)
    print(f"{options.length} calls: {calls * 1e3:.0f} ms, {calls / options.length * 1e6:.0f} µs each")
    for batch, channels, per_sample in SIZES:
        decoding, whole = seconds(batch, channels, per_sample, options.length)
        print(
            f"B = {batch}, D = {channels}, {'a filter for each sample' if per_sample else 'shared filter'}: "
            f"whole {whole * 1e3:.1f} ms, token by token {decoding * 1e3:.0f} ms, "
            f"without the calls {(decoding - calls) / whole:.1f} times as long"
        )


if __name__ == "__main__":
    main()
