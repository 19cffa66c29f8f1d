"""The steps of a decoder: their values, their bits, what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Sample
from cuda_on_cpu import long_conv_step as emulated
from cuda_on_cpu.device import Device
from torch import Tensor

from equiconv import build_info
from equiconv.nn.long_conv_state import widest_square
from equiconv.ops.long_conv_step import BLOCK, padded, prepare, square, step
from equiconv.reference import fft_conv, long_conv_step

# ---- the contract, as far as it applies where nothing is differentiated ---------------------------------


class State:
    """A filter (D, Lf) or (B, D, Lf), and the buffer of B sequences."""

    def __init__(self, filter: Tensor, batch: int, length: int) -> None:
        rows = filter.flatten(0, -2).contiguous()
        self.widest = widest_square(rows.shape[1], length)
        self.filter = prepare(rows, self.widest)
        together = 1 if filter.dim() == 3 else batch
        blocks = -(-length // BLOCK)
        self.buffer = rows.new_zeros(together, blocks * BLOCK, padded(len(rows), rows.dtype))

    def step(
        self, x: Tensor, position: int, pre_gate: Tensor | None = None, post_gate: Tensor | None = None
    ) -> Tensor:
        y: Tensor = step(x, pre_gate, post_gate, self.buffer, self.filter, self.widest, position)
        return y


def decoded(x: Tensor, filter: Tensor, *, sizes: Sequence[int], **gates: Tensor) -> Tensor:
    """All tokens, which come in `sizes`, the last of them again and again."""
    return torch.cat(in_pieces(State(filter, x.shape[0], x.shape[1]), x, sizes, **gates), 1)


def in_pieces(state: State, x: Tensor, sizes: Sequence[int], **gates: Tensor) -> list[Tensor]:
    parts, position, left = [], 0, list(sizes)
    while position < x.shape[1]:
        size = min(left.pop(0) if len(left) > 1 else left[0], x.shape[1] - position)
        part = slice(position, position + size)
        parts.append(state.step(x[:, part], position, **{name: g[:, part] for name, g in gates.items()}))
        position += size
    return parts


def reference(x: Tensor, filter: Tensor, *, sizes: Sequence[int], **gates: Tensor) -> Tensor:
    nothing = x.new_empty(x.shape[0], 0, x.shape[2])
    return long_conv_step.long_conv_step(x, nothing, filter, **gates)[0]


def sample(
    name: str,
    batch: int,
    channels: int,
    length: int,
    taps: int,
    sizes: Sequence[int],
    *,
    per_sample: bool = False,
    gates: Sequence[str] = (),
    strided: bool = False,
) -> Sample:
    tensors = {"x": "BLD", "filter": "BDN" if per_sample else "DN", **dict.fromkeys(gates, "BLD")}
    return Sample(
        name,
        tensors,
        {"B": batch, "D": channels, "L": length, "N": taps},
        {"sizes": tuple(sizes)},
        strided=strided,
        float32=frozenset(["filter"]),
    )


GATES = ("pre_gate", "post_gate")
# Vectors and tiles of channels that are full and those that are not, samples in one of them, one block and
# many, short filters; on CUDA squares of products and, from 512 on, of transforms.
SAMPLES = (
    sample("one-token", 1, 1, 1, 1, [1]),
    sample("one-block", 2, 3, 64, 64, [1], gates=GATES),
    sample("squares", 2, 3, 200, 200, [1], per_sample=True, gates=GATES),
    sample("pieces", 2, 5, 300, 300, [70, 1, 13, 64, 77]),
    sample("one-call", 2, 3, 260, 130, [260], gates=["pre_gate"]),
    sample("one-tap", 2, 5, 513, 1, [13]),
    sample("few-taps", 1, 4, 520, 65, [65], gates=["post_gate"]),
    sample("samples-in-one-tile", 3, 21, 140, 90, [1, 64], per_sample=True, gates=GATES),
    sample("whole-tiles", 2, 64, 136, 136, [100, 36], gates=GATES),
    sample("strided", 4, 6, 128, 128, [3], per_sample=True, gates=GATES, strided=True),
    sample("transforms", 2, 3, 1100, 1024, [1100], gates=GATES),
    sample("transforms-of-whole-tiles", 1, 32, 576, 576, [576]),
    sample("transforms-per-sample", 2, 2, 600, 600, [64], per_sample=True),
)


def check(sample: Sample, tensors: dict[str, Any], y: Tensor) -> None:
    """As the contract's check, of the result."""
    tensors = contract.detached(tensors)
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    exact = reference(**wide, **sample.options)
    squares = reference(**{name: tensor.square() for name, tensor in wide.items()}, **sample.options)
    size = max(exact.abs().max().item(), squares.max().item() ** 0.5)
    assert y.dtype == tensors["x"].dtype
    contract.check_error("y", y, reference(**tensors, **sample.options), exact, size)


class TestContract:
    op = contract.Op(
        function=decoded,
        reference=reference,
        exact=reference,
        of_squares=reference,
        samples=SAMPLES,
        refusals=(),
        random=st.nothing(),
        groups=(),
        grown=lambda sizes: {},
        weights=("filter",),
        on_emulator=emulated.long_conv_step,
    )

    def test_values(self, sample: Sample, dtype: torch.dtype, device: str) -> None:
        tensors = contract.detached(sample.make(dtype, device))
        check(sample, tensors, decoded(**tensors, **sample.options))

    def test_cuda_kernels_on_a_cpu(self, sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
        emulator.schedule("forward")
        check_emulated(sample, dtype, emulator)

    def test_cuda_kernels_have_no_race(self, sample: Sample, race_detector: Device) -> None:
        race_detector.schedule("random:1")
        check_emulated(sample, torch.float32, race_detector)

    def test_one_call_for_all_tokens_has_the_same_bits(self, sample: Sample, device: str) -> None:
        tensors = contract.detached(sample.make(torch.float32, device))
        x, filter = tensors.pop("x"), tensors.pop("filter")
        results = []
        for sizes in (sample.options["sizes"], [x.shape[1]], [*[1] * 70, 13, 64, 1, 200, 77]):
            state = State(filter, x.shape[0], x.shape[1])
            results.append([torch.cat(in_pieces(state, x, sizes, **tensors), 1), state.buffer])
        contract.assert_same_bits(results[1], results[0])
        contract.assert_same_bits(results[2], results[0])


def check_emulated(sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
    tensors = contract.detached(sample.make(dtype, "cpu"))
    emulator.report()
    (y,) = emulated.long_conv_step(emulator, tensors, sample.options)
    assert emulator.report() == ""
    check(sample, tensors, y)


def named(name: str) -> Sample:
    return next(sample for sample in SAMPLES if sample.name == name)


@pytest.mark.parametrize("name", ["squares", "pieces", "whole-tiles"])
def test_the_order_of_threads_does_not_matter(name: str, emulator: Device) -> None:
    sample = named(name)
    tensors = contract.detached(sample.make(torch.float32, "cpu"))
    results = []
    for schedule in ("forward", "reverse", "random:1", "random:2", "warp:3"):
        emulator.schedule(schedule)
        results.append(emulated.long_conv_step(emulator, tensors, sample.options))
    assert emulator.report() == ""
    for result in results[1:]:
        contract.assert_same_bits(result, results[0])


@pytest.mark.parametrize("length", [256, 1024])
def test_a_square_of_the_cuda_kernels_is_that_of_the_steps(length: int, emulator: Device) -> None:
    """The one that ends at half the length, of products and of transforms."""
    filter, x = random(2, length) / length**0.5, random(2, length, 2)
    emulator.schedule("forward")
    kept = []
    for again in (False, True):
        state = emulated.State(emulator, filter, 2, length)
        state.step(x[:, : length // 2], 0)
        if again:
            state.square(length // 2)
        kept.append(state.kept())
        emulator.free_all()
    assert emulator.report() == ""
    once, twice = kept
    contract.assert_same_bits([twice[:, : length // 2]], [once[:, : length // 2]])
    ahead = reference(
        torch.cat([x[:, : length // 2].double(), x.new_zeros(2, length // 2, 2).double()], 1),
        filter.double(),
        sizes=[1],
    )[:, length // 2 :]
    for times, result in ((1, once), (2, twice)):
        torch.testing.assert_close(result[:, length // 2 :].double(), times * ahead, rtol=0, atol=1e-5)


def test_the_definition_is_the_causal_convolution() -> None:
    x, filter, pre, post = (random(2, 40, 3, dtype=torch.float64, seed=i) for i in range(4))
    filter = filter[:, :30].mT
    parts, state = [], x.new_empty(2, 0, 3)
    for first, end in ((0, 1), (1, 17), (17, 40)):
        part = slice(first, end)
        y, state = long_conv_step.long_conv_step(
            x[:, part], state, filter, pre_gate=pre[:, part], post_gate=post[:, part]
        )
        parts.append(y)
    whole = fft_conv.fft_conv(x, filter, pre_gate=pre, post_gate=post, layout="bld")
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, pre * x)


# ---- what is special ---------------------------------------------------------------------------------------


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


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
    return str(detected) if detected in contract.CAPABILITIES else "avx512"


def test_same_bits_for_any_number_of_threads() -> None:
    """Squares wide enough for threads of their own, of many columns."""
    filter, x = random(2, 512, 1024) / 32, random(2, 1024, 512)
    results, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            state = State(filter, 2, 1024)
            results.append([state.step(x, 0), state.buffer])
            state = State(filter, 2, 1024)
            results.append([torch.cat([state.step(x[:, t : t + 512], t) for t in (0, 512)], 1), state.buffer])
        finally:
            torch.set_num_threads(threads)
    for result in results[1:]:
        contract.assert_same_bits(result, results[0])


def test_a_square_is_that_of_the_steps() -> None:
    filter, x = random(2, 3, 256), random(2, 256, 3)
    stepped, given = State(filter, 2, 256), State(filter, 2, 256)
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
    clean = State(filter, 3, 256).step(x, 0)
    x[1, 77, 2] = torch.nan
    y = State(filter, 3, 256).step(x, 0)
    assert y[1, 77:, 2].isnan().all()
    row = torch.zeros(3, 256, 5, dtype=torch.bool)
    row[1, 77:, 2] = True
    contract.assert_same_bits([y[~row]], [clean[~row]])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 0, 4)])
@pytest.mark.parametrize("per_sample", [False, True])
def test_nothing_to_do(shape: tuple[int, int, int], per_sample: bool) -> None:
    batch, _, channels = shape
    state = State(random(*([batch] if per_sample else []), channels, 128), batch, 128)
    assert state.step(torch.empty(shape), 0).shape == shape
    square(state.buffer, state.filter, channels * (batch if per_sample else 1), state.widest, 64)
    assert not state.buffer.any()


def test_strided_signals() -> None:
    """Channels apart, and samples in one vector that are not side by side."""
    for per_sample in (False, True):
        filter, x = random(*([4] if per_sample else []), 6, 128), random(4, 128, 6)
        expected = State(filter, 4, 128).step(x, 0)
        contract.assert_same_bits([State(filter, 4, 128).step(x.mT.contiguous().mT, 0)], [expected])
        state = State(filter, 4, 128)
        tokens = [state.step(x[:, t : t + 1], t) for t in range(128)]
        contract.assert_same_bits([torch.cat(tokens, 1)], [expected])
        state = State(filter, 4, 128)
        tokens = [state.step(x[:, t : t + 1].contiguous(), t) for t in range(128)]
        contract.assert_same_bits([torch.cat(tokens, 1)], [expected])


def test_dispatcher() -> None:
    """Fake kernels, what the schema says of the buffer, tracing; and derivatives are cut, not wrong."""
    filter, x, gate = random(3, 128), random(2, 5, 3), random(2, 5, 3, seed=1)
    state = State(filter, 2, 128)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        step, (x, gate, None, state.buffer, state.filter, state.widest, 60), test_utils=checks
    )
    torch.library.opcheck(square, (state.buffer, state.filter, 3, state.widest, 64), test_utils=checks)
    torch.library.opcheck(prepare, (filter, 64), test_utils=checks)
    with torch.inference_mode():
        inference = State(filter, 2, 128).step(x, 0)
    y = State(filter, 2, 128).step(x.clone().requires_grad_(), 0)
    assert not y.requires_grad
    contract.assert_same_bits([inference], [y])


def test_refusals() -> None:
    filter, x = random(3, 128), random(2, 5, 3)
    good = State(filter, 2, 128)
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
        ("taps must be strided, but is sparse_coo", lambda: prepare(filter.to_sparse(), 64)),
        ("x must be strided, but is sparse_coo", lambda: step(x.to_sparse(), None, None, b, f, 64, 0)),
        ("taps must be float32 or float64, but is float16", lambda: prepare(filter.half(), 64)),
    ):
        refused(f"long_conv_step: {sentence}", call)
    assert not b.any()
