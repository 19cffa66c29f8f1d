"""gate's cost on a GPU: model.py, for the launches of csrc/cuda/gate.cu on contiguous (rows, channels).

Of rows of whole 16 bytes. Biases are left out: they are asked for with every 16 bytes of x, and found in the
first cache. tests/test_model_gate.py counts them, and all else but the operations, which are estimates.
"""

from __future__ import annotations

from .harness import DTYPES, Case
from .model import Count, Device, Launch, Prediction, sectors

THREADS = 256
OPERATIONS = {"forward": 30, "backward": 40}  # of an element: an exponential, a division, the products


def predict(case: Case, device: Device) -> Prediction:
    """Both biases, of the dtype of x; forward, or forward and backward."""
    item = DTYPES[case.dtype].itemsize
    real = max(item, 4)
    rows, channels = case.batch * case.length, case.channels
    elements = rows * channels
    if elements == 0:
        return Prediction(device, (), real)
    tensor, width = elements * item, 16 // item
    forward = Count(2 * tensor, tensor, 0, OPERATIONS["forward"] * elements)
    launches = [Launch("everywhere", -(-elements // (THREADS * width)), THREADS, forward, 3 * tensor)]
    if case.direction == "backward":
        tiles = -(-channels // (32 * width))
        parts = min(max(-(-2048 // tiles), 1), max(rows // 64, 1))
        sums = parts * channels  # of each of two
        backward = Count(
            loads=3 * tensor,
            # a lane's sums are neighbours, and stored one after the other
            stores=2 * tensor + 2 * sums * min(width * real, 32),
            # a number for each thread and element of 16 bytes goes to shared memory and comes back, twice
            wavefronts=2 * 2 * tiles * parts * THREADS * width * real / 128,
            operations=OPERATIONS["backward"] * elements,
        )
        memory = 5 * tensor + 2 * sums * real
        launches.append(Launch("sum_rows", tiles * parts, THREADS, backward, memory))
        added = Count(sums * real, sectors(channels, item, channels), 0, sums)
        blocks = -(-channels // THREADS)
        launches += 2 * [Launch("add_parts", blocks, THREADS, added, sums * real + channels * item)]
    return Prediction(device, tuple(launches), real)
