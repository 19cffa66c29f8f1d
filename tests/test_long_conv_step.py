"""The steps of a decoder on a CPU: their values on every capability, their bits, what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import contract
import pytest
import torch
from torch import Tensor

from equiconv import build_info
from equiconv.ops.long_conv_step import BLOCK, padded, prepare, square, step
from equiconv.reference.fft_conv import fft_conv as reference

KEPT = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


class State:
    """A filter (D, Lf) or (B, D, Lf), and the buffer of B sequences."""

    def __init__(self, filter: Tensor, batch: int, blocks: int) -> None:
        rows = filter.flatten(0, -2).contiguous()
        self.widest = 1 << (blocks * BLOCK - 1).bit_length() - 1 if blocks > 1 else 0
        self.filter = prepare(rows, self.widest)
        together = 1 if filter.dim() == 3 else batch
        self.buffer = rows.new_zeros(together, blocks * BLOCK, padded(len(rows), rows.dtype))

    def step(
        self, x: Tensor, position: int, pre_gate: Tensor | None = None, post_gate: Tensor | None = None
    ) -> Tensor:
        y: Tensor = step(x, pre_gate, post_gate, self.buffer, self.filter, self.widest, position)
        return y


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


# Vectors that are full and those that are not, samples in one vector, one block and many, short filters.
SIZES = [
    (1, 1, 1, 64, False),
    (2, 3, 2, 100, False),
    (2, 3, 3, 200, True),
    (3, 16, 4, 256, True),
    (1, 40, 16, 1024, False),
    (2, 21, 17, 90, True),
    (2, 5, 8, 1, False),
]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "channels", "blocks", "taps", "per_sample"), SIZES)
def test_values(
    batch: int, channels: int, blocks: int, taps: int, per_sample: bool, dtype: torch.dtype, gated: bool
) -> None:
    """Against the definition in float64, and the bits of one call for all tokens, or one for each."""
    kept = KEPT.get(dtype, dtype)
    length = blocks * BLOCK
    filter = random(*([batch] if per_sample else []), channels, taps, dtype=kept) / taps**0.5
    x = random(batch, length, channels, dtype=dtype, seed=1)
    pre, post = random(2, batch, length, channels, dtype=dtype, seed=2).unbind() if gated else (None, None)
    exact = reference(
        x.double(),
        filter.double(),
        pre_gate=None if pre is None else pre.double(),
        post_gate=None if post is None else post.double(),
        layout="bld",
    )
    at_once = State(filter, batch, blocks)
    y = at_once.step(x, 0, pre, post)
    rounding = torch.finfo(dtype).eps / 2 if dtype != kept else 0
    largest = (exact / (post.double() if post is not None else 1)).abs().max()
    error = (1e-6 if kept == torch.float32 else 1e-14) * largest
    scale = 1 if post is None else post.double().abs().clamp(min=1)
    assert ((y - exact).abs() <= 1.01 * rounding * exact.abs() + error * scale).all()

    one_by_one, parts = State(filter, batch, blocks), []
    sizes = [1] * 70 + [13, 64, 1, 200]
    position = 0
    while position < length:
        size = min(sizes.pop(0) if sizes else 77, length - position)
        part = slice(position, position + size)
        gates = () if pre is None or post is None else (pre[:, part], post[:, part])
        parts.append(one_by_one.step(x[:, part], position, *gates))
        position += size
    contract.assert_same_bits([torch.cat(parts, 1), one_by_one.buffer], [y, at_once.buffer])


@pytest.mark.parametrize("capability", contract.CAPABILITIES)
def test_each_cpu_capability(capability: str) -> None:
    """Values again, with the kernels of every other processor that this one can stand in for."""
    if capability == build_info()["cpu_capability"]:
        pytest.skip("all other tests run with these kernels")
    environment = {**os.environ, "EQUICONV_CPU_CAPABILITY": capability}
    if contract.CAPABILITIES.index(capability) > contract.CAPABILITIES.index(_detected()):
        pytest.skip(f"this processor is no {capability}")
    plugins = ("-p", "no:cacheprovider", "-p", "no:xdist")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, __file__, "-k", "test_values"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def _detected() -> str:
    detected = build_info()["cpu_detected"]
    return "avx512" if detected == "amx" else str(detected)


def test_same_bits_for_any_number_of_threads() -> None:
    """Squares wide enough for threads of their own, of many columns."""
    filter, x = random(2, 512, 1024) / 32, random(2, 1024, 512)
    results, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            state = State(filter, 2, 16)
            results.append([state.step(x, 0), state.buffer])
            state = State(filter, 2, 16)
            results.append([torch.cat([state.step(x[:, t : t + 512], t) for t in (0, 512)], 1), state.buffer])
        finally:
            torch.set_num_threads(threads)
    for result in results[1:]:
        contract.assert_same_bits(result, results[0])


def test_a_square_is_that_of_the_steps() -> None:
    filter, x = random(2, 3, 256), random(2, 256, 3)
    stepped, given = State(filter, 2, 4), State(filter, 2, 4)
    stepped.step(x[:, :128], 0)
    given.step(x[:, :64], 0)
    given.step(x[:, 64:127], 64)
    before = given.buffer[:, 127].clone()
    given.step(x[:, 127:128], 127)
    contract.assert_same_bits([given.buffer], [stepped.buffer])
    assert not torch.equal(before, given.buffer[:, 127])
    # Twice the same square.
    ahead = given.buffer[:, 128:].clone()
    square(given.buffer, given.filter, 6, given.widest, 128)
    whole = stepped.buffer[:, 128:]
    torch.testing.assert_close(given.buffer[:, 128:], 2 * whole)
    assert not torch.equal(ahead, given.buffer[:, 128:])
    contract.assert_same_bits([given.buffer[:, :128]], [stepped.buffer[:, :128]])


@pytest.mark.parametrize("per_sample", [False, True])
def test_nan_stays_in_its_row(per_sample: bool) -> None:
    """In its sample and channel, from its position on."""
    filter, x = random(*([3] if per_sample else []), 5, 256), random(3, 256, 5)
    clean = State(filter, 3, 4).step(x, 0)
    x[1, 77, 2] = torch.nan
    y = State(filter, 3, 4).step(x, 0)
    assert y[1, 77:, 2].isnan().all()
    row = torch.zeros(3, 256, 5, dtype=torch.bool)
    row[1, 77:, 2] = True
    contract.assert_same_bits([y[~row]], [clean[~row]])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 0, 4)])
@pytest.mark.parametrize("per_sample", [False, True])
def test_nothing_to_do(shape: tuple[int, int, int], per_sample: bool) -> None:
    batch, _, channels = shape
    state = State(random(*([batch] if per_sample else []), channels, 128), batch, 2)
    assert state.step(torch.empty(shape), 0).shape == shape
    square(state.buffer, state.filter, channels * (batch if per_sample else 1), state.widest, 64)
    assert not state.buffer.any()


def test_strided_signals() -> None:
    """Channels apart, and samples in one vector that are not side by side."""
    for per_sample in (False, True):
        filter, x = random(*([4] if per_sample else []), 6, 128), random(4, 128, 6)
        expected = State(filter, 4, 2).step(x, 0)
        contract.assert_same_bits([State(filter, 4, 2).step(x.mT.contiguous().mT, 0)], [expected])
        state = State(filter, 4, 2)
        tokens = [state.step(x[:, t : t + 1], t) for t in range(128)]
        contract.assert_same_bits([torch.cat(tokens, 1)], [expected])
        state = State(filter, 4, 2)
        tokens = [state.step(x[:, t : t + 1].contiguous(), t) for t in range(128)]
        contract.assert_same_bits([torch.cat(tokens, 1)], [expected])


def test_dispatcher() -> None:
    """Fake kernels, what the schema says of the buffer, tracing; and derivatives are cut, not wrong."""
    filter, x, gate = random(3, 128), random(2, 5, 3), random(2, 5, 3, seed=1)
    state = State(filter, 2, 2)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        step, (x, gate, None, state.buffer, state.filter, state.widest, 60), test_utils=checks
    )
    torch.library.opcheck(square, (state.buffer, state.filter, 3, state.widest, 64), test_utils=checks)
    torch.library.opcheck(prepare, (filter, 64), test_utils=checks)
    with torch.inference_mode():
        inference = State(filter, 2, 2).step(x, 0)
    y = State(filter, 2, 2).step(x.clone().requires_grad_(), 0)
    assert not y.requires_grad
    contract.assert_same_bits([inference], [y])


def test_refusals() -> None:
    filter, x = random(3, 128), random(2, 5, 3)
    good = State(filter, 2, 2)
    b, f = good.buffer, good.filter

    def refused(sentence: str, call: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=r"^") as error:
            call()
        assert str(error.value) == sentence

    for sentence, call in (
        ("x must be (B, L, D), but has shape (5, 3)", lambda: step(x[0], None, None, b, f, 64, 0)),
        (
            "x must be float32, float64, bfloat16 or float16, but is int32",
            lambda: step(x.int(), None, None, b, f, 64, 0),
        ),
        (
            "pre_gate must have the shape of x, (2, 5, 3), but has (2, 4, 3)",
            lambda: step(x, x[:, 1:], None, b, f, 64, 0),
        ),
        (
            "post_gate must have the dtype of x, float32, but has float64",
            lambda: step(x, None, x.double(), b, f, 64, 0),
        ),
        (
            "buffer must have the dtype that x is computed in, float64, but has float32",
            lambda: step(x.double(), None, None, b, f, 64, 0),
        ),
        (
            "buffer must have the batch of x, 3, or 1, for a filter each, but has 2",
            lambda: step(x[[0, 0, 1]], None, None, b, f, 64, 0),
        ),
        ("buffer must be (B, rows, channels), but has shape (128, 16)", lambda: square(b[0], f, 3, 64, 0)),
        (
            "buffer must be contiguous, but has strides (16, 32, 1)",
            lambda: square(b.transpose(0, 1).contiguous().transpose(0, 1), f, 3, 64, 0),
        ),
        ("buffer must be float32 or float64, but is float16", lambda: square(b.half(), f, 3, 64, 0)),
        (
            "buffer must have a multiple of 64 rows, but has 100",
            lambda: square(b[:, :100].contiguous(), f, 3, 64, 0),
        ),
        (
            "buffer must have 48 channels, an odd number of whole lines, but has 16",
            lambda: square(b, f, 17, 64, 0),
        ),
        (
            "filter must have the dtype of buffer, float32, but has float64",
            lambda: square(b, f.double(), 3, 64, 0),
        ),
        (
            "filter must be what long_conv_step_filter returns for 3 channels, of shape (3456,), but has "
            "shape (3455,)",
            lambda: square(b, f[1:].contiguous(), 3, 64, 0),
        ),
        (
            "widest must be at least 64 where buffer has 128 rows, but is 0",
            lambda: square(b, prepare(filter, 0), 3, 0, 0),
        ),
        (
            "widest must be 0 or a power of two from 64 to 1073741824, but is 96",
            lambda: prepare(filter, 96),
        ),
        (
            "position must be 0 to 123, so that the tokens have rows, but is 124",
            lambda: step(x, None, None, b, f, 64, 124),
        ),
        (
            "position must be 0 to 123, so that the tokens have rows, but is -1",
            lambda: step(x, None, None, b, f, 64, -1),
        ),
        ("taps must be (D, Lf), but has shape (128,)", lambda: prepare(filter[0], 64)),
        ("taps must be float32 or float64, but is float16", lambda: prepare(filter.half(), 64)),
    ):
        refused(f"long_conv_step: {sentence}", call)
    assert not b.any()
