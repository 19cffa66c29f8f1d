"""short_conv's cost on a GPU: model.py, for the launches of csrc/cuda/short_conv.cu on contiguous tensors.

Tiles of 32 lanes by 64 positions, with what the taps reach read anew by every tile; rows of whole 16 bytes. A
thread slides 8 positions over the taps, so of a tile it reads 8 + W - 1 values for 8 sums.
tests/test_model_short_conv.py counts all but the operations, which are estimates.
"""

from __future__ import annotations

import math

from .harness import DTYPES, Case
from .model import Count, Device, Launch, Prediction

THREADS, LANES, TILE, EACH, BLOCKS_OF_RUNS = 256, 32, 64, 8, 512
WARPS = THREADS // 32
ACTIVATION = 30  # operations: an exponential, a division, the products


def predict(case: Case, device: Device) -> Prediction:
    """A bias, of the dtype of x; forward, or forward and backward."""
    taps = getattr(case, "taps", 4)
    activated = getattr(case, "activation", "none") != "none"
    streams = 3 if case.op == "short_conv_gated" else 1
    results = 2 if streams == 3 else 1
    item = DTYPES[case.dtype].itemsize
    real, width = max(item, 4), 16 // item
    elements = case.elements  # of a result
    if elements == 0:
        return Prediction(device, (), real)
    columns = case.layout == "bld"
    groups = -(-case.channels // LANES)
    tiles = case.batch * -(-case.length // TILE)
    seams = tiles if case.mode.startswith("circular") else tiles - case.batch
    positions, reach = case.batch * case.length, taps - 1
    after = -(-reach // EACH) * EACH  # of the gradients of the sums, which threads make by so many
    every_lane = groups * LANES * real / 128  # wavefronts, for one position

    def beside(count: int) -> float:
        """Bytes asked for of so many positions beside all tiles that have such; single ones a sector each."""
        whole, single = divmod(count, width)
        each = count * item if columns else 32 * (math.ceil(whole / 2) + single)
        return seams * case.channels * each

    def staged(count: int) -> float:
        """Wavefronts of taking so many positions of a tile between shared memory and registers that hold 16
        bytes of a tensor: banks are met more than once by float64, and by pieces of one lane, 32 apart."""
        times = 2 if item == 8 else 1 if columns else math.ceil(count // width * width / 32)
        return times * count * every_lane

    def sliding(count: float) -> float:
        """Wavefronts of sliding over the taps, the taps' own among them."""
        return count * every_lane * (EACH + reach + taps) / EACH

    tensor = elements * item
    start = every_lane / EACH  # of sums: the bias
    # The taps of a block, and the bias; they lie as (D, W), so that lanes are W apart.
    weights = streams * case.channels * (taps * min(taps * item, 32) + item)
    kept_weights = streams * (taps + 1) * every_lane
    forward = Launch(
        "short_conv_sums",
        groups * tiles,
        THREADS,
        Count(
            loads=streams * (tensor + beside(reach)) + tiles * weights,
            stores=results * tensor,
            wavefronts=tiles * (streams * staged(TILE + reach) + results * staged(TILE) + kept_weights)
            + streams * (sliding(positions) + positions * start)
            + results * positions * every_lane,
            operations=elements * (streams * taps + (ACTIVATION if activated else results - 1)),
        ),
        (streams + results) * tensor,
    )
    if case.direction == "forward":
        return Prediction(device, (forward,), real)

    anew = streams == 3 or activated
    runs = max(1, min(tiles, BLOCKS_OF_RUNS // groups))
    wanted = positions + tiles * after
    if anew:  # the sums, and their gradients in the place of the results'
        made = streams * (sliding(wanted) + wanted * start) + (3 if streams == 3 else 2) * wanted * every_lane
    else:
        made = 0
    # each block's sums of weights, from its warps and added up
    partial = runs * streams * groups * LANES * (taps + 1) * real
    backward = Launch(
        "short_conv_gradients",
        groups * runs,
        THREADS,
        Count(
            loads=streams * (tensor + beside(reach) + beside(after))
            + results * (tensor + beside(after))
            + runs * weights,
            stores=streams * tensor + partial,
            wavefronts=tiles * streams * (staged(TILE + after + reach) + staged(TILE))
            + tiles * results * staged(TILE + after)
            + made
            + streams * positions * every_lane * (2 * EACH + reach) / EACH  # the weights' gradients
            + streams * (sliding(positions) + positions * every_lane)  # grad_x
            + runs * kept_weights * (1 + 2 * WARPS),
            operations=elements * (streams * taps * (3 if anew else 2) + (ACTIVATION if activated else 0)),
        ),
        (2 * streams + results) * tensor + partial,
    )
    count = case.channels * streams * (taps + 1)
    totals = Launch(
        "short_conv_totals",
        -(-count // THREADS),
        THREADS,
        Count(loads=partial, stores=weights, operations=count * runs),
        partial + count * item,
    )
    return Prediction(device, (forward, backward, totals), real)
