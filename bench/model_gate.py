"""gate's cost on a GPU: model.py, for the launches of csrc/cuda/gate.cu on contiguous (rows, channels).

Counted by hand, and of the tensors alone: biases are asked for with every 16 bytes, and found in the first
cache.
"""

from __future__ import annotations

import math

from .harness import DTYPES, Case
from .model import Count, Device, Launch, Prediction

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
    width = 16 // item
    launches = [_launch("everywhere", -(-elements // (THREADS * width)), elements, item, 2, 1, 0, "forward")]
    if case.direction == "backward":
        tiles = -(-channels // (32 * width))
        parts = min(max(-(-2048 // tiles), 1), max(rows // 64, 1))
        sums = 2 * parts * channels * real
        launches.append(_launch("sum_rows", tiles * parts, elements, item, 3, 2, sums, "backward"))
        # a number for each thread and element of 16 bytes goes to shared memory and comes back, twice
        wavefronts = 2 * 2 * tiles * parts * THREADS * width * real / 128
        last = launches[-1]
        launches[-1] = Launch(
            last.kernel, last.blocks, last.threads, last.count + Count(wavefronts=wavefronts), last.memory
        )
        added = Count(loads=sums / 2, stores=math.ceil(channels * item / 32) * 32)
        blocks = -(-channels // THREADS)
        launches += 2 * [Launch("add_parts", blocks, THREADS, added, sums / 2 + channels * item)]
    return Prediction(device, tuple(launches), real)


def _launch(
    kernel: str, blocks: int, elements: int, item: int, read: int, written: int, sums: float, direction: str
) -> Launch:
    tensor = elements * item
    count = Count(read * tensor, written * tensor + sums, 0, OPERATIONS[direction] * elements)
    return Launch(kernel, blocks, THREADS, count, (read + written) * tensor + sums)
