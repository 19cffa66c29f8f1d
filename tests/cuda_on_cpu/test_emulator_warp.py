"""Shuffles, votes, barriers with a result, cooperative groups: against a plain model of each."""

from __future__ import annotations

import numpy as np
import pytest

from . import build
from .device import Device

UNIT = build.HERE / "units" / "warp.cu"
LANES = np.arange(32)


@pytest.fixture(scope="module", params=["fast", "race"])
def emulated(request: pytest.FixtureRequest) -> Device:
    try:
        return Device(build.library(request.param, (UNIT,)), request.param)
    except build.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["forward", "reverse", "random:1", "warp:2"])
def any_order(emulated: Device, request: pytest.FixtureRequest) -> Device:
    emulated.schedule(request.param)
    return emulated


TYPES = ["int32", "uint32", "int64", "uint64", "float32", "float64", "float16", "uint16"]


@pytest.mark.parametrize("number", TYPES)
def test_shuffles(emulated: Device, number: str) -> None:
    r = np.random.default_rng(0)
    values = (r.standard_normal(32) * 1000).astype(number)
    for width in (1, 2, 4, 8, 16, 32):
        by = r.integers(0, 32, 32).astype(np.int32)
        first = LANES - LANES % width
        up, down, xor = LANES - by, LANES + by, LANES ^ by[0]
        sources = [
            first + by % width,
            np.where(up >= first, up, LANES),
            np.where(down < first + width, down, LANES),
            np.where(xor < first + width, xor, LANES),
        ]
        given, result = emulated.array(values), emulated.array(np.zeros((4, 32), number))
        assert getattr(emulated.lib, f"shuffles_{number}")(given, result, emulated.array(by), width) == 0
        np.testing.assert_array_equal(emulated.read(result), values[np.stack(sources)])
    assert emulated.report() == ""
    emulated.free_all()


@pytest.mark.parametrize("mask", [0xFFFFFFFF, 0x0000FFFF, 0x80000001, 0x00000010])
@pytest.mark.parametrize("case", ["mixed", "equal", "none"])
def test_votes_matches_and_reductions(any_order: Device, mask: int, case: str) -> None:
    r = np.random.default_rng(mask)
    values = r.integers(-5, 5, 32).astype(np.int32) if case == "mixed" else np.full(32, -7, np.int32)
    predicate = {"mixed": r.integers(0, 2, 32) * 4, "equal": np.ones(32), "none": np.zeros(32)}[case]
    predicate = predicate.astype(np.int32)
    result = any_order.array(np.full((15, 32), 0xDEAD, np.uint32))
    device = any_order
    assert device.lib.run_votes(device.array(values), device.array(predicate), mask, result) == 0
    got = device.read(result)

    named = [lane for lane in range(32) if mask >> lane & 1]
    yes = sum(1 << lane for lane in named if predicate[lane])
    chosen = values[named]
    unsigned = chosen.view(np.uint32)
    for lane in named:
        same = sum(1 << other for other in named if values[other] == values[lane])
        wanted = [
            yes,
            yes != 0,
            yes == mask,
            yes in (0, mask),
            same,
            mask if same == mask else 0,
            same == mask,
        ]
        wanted += [chosen.sum(), chosen.min(), chosen.max(), unsigned.min(), unsigned.max()]
        wanted += [f.reduce(unsigned) for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)]
        np.testing.assert_array_equal(
            got[:, lane], np.array([int(w) & 0xFFFFFFFF for w in wanted], np.uint32)
        )
    for lane in set(range(32)) - set(named):
        assert (got[:, lane] == 0xDEAD).all()
    assert device.report() == ""
    device.free_all()


@pytest.mark.parametrize("set_in", [(), (0, 5, 64, 95), tuple(range(96))])
def test_barriers_with_a_result(any_order: Device, set_in: tuple[int, ...]) -> None:
    device, n = any_order, 96
    predicate = np.zeros(n, np.int32)
    predicate[list(set_in)] = 3
    result = device.array(np.zeros((3, n), np.int32))
    assert device.lib.run_barriers(device.array(predicate), n, result) == 0
    wanted = [len(set_in), len(set_in) == n, len(set_in) > 0]
    np.testing.assert_array_equal(device.read(result), np.repeat([wanted], n, 0).T)
    assert device.report() == ""
    device.free_all()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_shuffles_of_pairs(emulated: Device, bfloat16: bool) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 32, 32).astype(np.uint32)
    result = emulated.array(np.zeros(32, np.uint32))
    assert emulated.lib.run_pairs(emulated.array(values), result, bfloat16) == 0
    np.testing.assert_array_equal(emulated.read(result), values[LANES ^ 5])
    emulated.free_all()


@pytest.mark.parametrize("too_few", [False, True])
def test_half_a_warp_meets(any_order: Device, too_few: bool) -> None:
    """Two masks of one warp; what the other half has written is not there for sure."""
    device, values = any_order, np.arange(32, dtype=np.int32)
    result = device.array(values)
    assert device.lib.run_half_warps(device.array(values), result, too_few) == 0
    if not too_few:
        np.testing.assert_array_equal(device.read(result), values.reshape(2, 16)[:, ::-1].ravel())
    report = device.report()
    assert ("data race on shared memory" in report) == (too_few and device.build == "race")
    device.free_all()


def test_a_warp_makes_what_others_take(any_order: Device) -> None:
    device = any_order
    values = np.random.default_rng(1).integers(0, 99, 64).astype(np.int32)
    result = device.array(np.zeros((2, 96), np.int32))
    assert device.lib.run_producer(device.array(values), result, False) == 0
    taken = values.reshape(2, 32)[:, ::-1]
    np.testing.assert_array_equal(device.read(result)[:, 32:], np.tile(taken, 2))
    assert device.report() == ""
    device.free_all()


def test_who_waits_at_a_named_barrier_is_said(emulated: Device) -> None:
    result = emulated.array(np.zeros((2, 96), np.int32))
    emulated.schedule("forward")
    assert emulated.lib.run_producer(emulated.array(np.zeros(64, np.int32)), result, True) != 0
    report = emulated.report()
    assert "deadlock: no thread of the block can make progress" in report
    assert "threads 32-95: waiting at barrier 1, where 95 of 96 threads are at ptx.cuh:" in report
    assert "called at warp.cu:" in report
    emulated.free_all()


def test_teams_meet_apart(any_order: Device) -> None:
    device, values = any_order, np.arange(128, dtype=np.int32)
    result = device.array(values)
    assert device.lib.run_teams(device.array(values), result, 1, 64) == 0
    np.testing.assert_array_equal(device.read(result), values.reshape(2, 64)[:, ::-1].ravel())
    assert device.report() == ""
    device.free_all()


@pytest.mark.parametrize(("first", "threads", "said"), [
    (0, 64, "barrier 0: a block has those from 1 to 15"), (15, 64, "barrier 16: a block has those"),
    (1, 40, "barrier 1 of 40 threads: not a number of the block's whole warps"),
    (1, 160, "barrier 1 of 160 threads: not a number of the block's whole warps"),
    (1, 32, "data race"),
])  # fmt: skip
def test_a_named_barrier_that_cannot_be(emulated: Device, first: int, threads: int, said: str) -> None:
    if threads == 32 and emulated.build != "race":
        pytest.skip("meets too early, which the race build sees")
    values = np.arange(128, dtype=np.int32)
    emulated.schedule("forward")
    emulated.lib.run_teams(emulated.array(values), emulated.array(values), first, threads)
    assert said in emulated.report()
    emulated.free_all()


@pytest.mark.parametrize("size", [2, 8, 32])
def test_tiles(any_order: Device, size: int) -> None:
    device, n = any_order, 64
    values = np.random.default_rng(size).integers(-99, 99, n).astype(np.int32)
    result = device.array(np.zeros((16, n), np.int32))
    assert device.lib.run_tiles(device.array(values), result, size) == 0
    tiles, rank = values.reshape(-1, size), np.tile(np.arange(size), n // size)
    ballots = ((tiles & 1).astype(np.int64) << np.arange(size)).sum(1).astype(np.uint32).view(np.int32)
    same = (tiles[:, :, None] & 3 == tiles[:, None, :] & 3).astype(np.int64) << np.arange(size)
    before, after = np.maximum(np.arange(size) - 1, 0), np.minimum(np.arange(size) + 1, size - 1)
    wanted = [
        rank,
        np.repeat(np.arange(n // size), size),
        np.full(n, 2 * size + n // size),
        np.repeat(tiles[:, 1], size),
        tiles[:, before].ravel(),
        tiles[:, after].ravel(),
        tiles[:, np.arange(size) ^ (size // 2)].ravel(),
        np.repeat(ballots, size),
        np.repeat(tiles.sum(1), size),
        np.repeat(tiles.max(1), size),
        np.repeat(tiles.min(1), size),
        *(np.repeat(f.reduce(tiles, 1), size) for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)),
        np.repeat(2 * (tiles & 1).any(1) + (tiles & 1).all(1), size),
        same.sum(2).astype(np.uint32).view(np.int32).ravel(),
    ]
    np.testing.assert_array_equal(device.read(result), wanted)
    assert device.report() == ""
    device.free_all()


def test_coalesced_threads(any_order: Device) -> None:
    total = any_order.array(np.zeros(1, np.int32))
    assert any_order.lib.run_coalesced(total) == 0
    assert any_order.read(total)[0] == 64
    any_order.free_all()


def test_the_grid_meets(any_order: Device) -> None:
    device = any_order
    written, sums = device.array(np.zeros(4, np.int32)), device.array(np.zeros(32, np.int32))
    assert device.lib.run_grid(written, sums, True) == 0
    np.testing.assert_array_equal(device.read(sums), np.repeat(10 + 10 * np.arange(4), 8))
    assert device.report() == ""
    device.free_all()


def test_the_grid_meets_only_where_launched_so(emulated: Device) -> None:
    written, sums = emulated.array(np.zeros(4, np.int32)), emulated.array(np.zeros(32, np.int32))
    assert emulated.lib.run_grid(written, sums, False) != 0
    assert "not launched cooperatively at warp.cu:" in emulated.report()
    emulated.free_all()
