"""short_conv's cost on a GPU: model.py, for the launches of csrc/cuda/short_conv.cu on contiguous tensors.

Counted by hand: tiles of 32 lanes by 64 positions, with what the taps reach read anew by every tile. A thread
slides 8 positions over the taps, so of a tile it reads 8 + W - 1 values for 8 sums.
"""

from __future__ import annotations

from .harness import DTYPES, Case
from .model import Count, Device, Launch, Prediction

THREADS, LANES, TILE, EACH, MOST_TAPS, BLOCKS_OF_RUNS = 256, 32, 64, 8, 16, 512
ACTIVATION = 30  # operations: an exponential, a division, the products


def predict(case: Case, device: Device) -> Prediction:
    """A bias, of the dtype of x; forward, or forward and backward."""
    taps = getattr(case, "taps", 4)
    activated = getattr(case, "activation", "none") != "none"
    streams = 3 if case.op == "short_conv_gated" else 1
    results = 2 if streams == 3 else 1
    item = DTYPES[case.dtype].itemsize
    real = max(item, 4)
    elements = case.elements  # of a result
    if elements == 0:
        return Prediction(device, (), real)
    groups = -(-case.channels // LANES)
    tiles = case.batch * -(-case.length // TILE)
    reach = taps - 1
    wavefronts = elements * real / 128  # of shared memory, to have every value of a stream once

    def sums(sweeps: float) -> float:
        """Wavefronts of sliding over the taps, the taps' own among them."""
        return sweeps * wavefronts * ((EACH + reach) + taps) / EACH

    tensor = elements * item
    overlap = (TILE + reach) / TILE
    forward = Launch(
        "short_conv_sums",
        groups * tiles,
        THREADS,
        Count(
            loads=streams * overlap * tensor,
            stores=results * tensor,
            wavefronts=streams * overlap * wavefronts + sums(streams) + 2 * results * wavefronts,
            operations=elements * (streams * taps + (ACTIVATION if activated else results - 1)),
        ),
        (streams + results) * tensor,
    )
    if case.direction == "forward":
        return Prediction(device, (forward,), real)

    anew = streams == 3 or activated
    runs = max(1, min(tiles, BLOCKS_OF_RUNS // groups))
    partial = runs * streams * groups * LANES * (taps + 1) * real
    read = streams * (TILE + 2 * reach) / TILE + results * overlap
    sweeps = streams * (2 if anew else 1)  # the sums anew, and grad_x
    backward = Launch(
        "short_conv_gradients",
        groups * runs,
        THREADS,
        Count(
            loads=read * tensor,
            stores=streams * tensor + partial,
            wavefronts=read * wavefronts
            + sums(sweeps)
            + streams * wavefronts * (2 * EACH + reach) / EACH
            + (2 * results * wavefronts if anew else 0)
            + 2 * streams * wavefronts,
            operations=elements * (streams * taps * (3 if anew else 2) + (ACTIVATION if activated else 0)),
        ),
        (2 * streams + results) * tensor + partial,
    )
    weights = case.channels * streams * (taps + 1)
    totals = Launch(
        "short_conv_totals",
        -(-weights // THREADS),
        THREADS,
        Count(loads=partial, stores=weights * item, operations=weights * runs),
        partial + weights * item,
    )
    return Prediction(device, (forward, backward, totals), real)
