"""The benchmarks of the mixer and of decoding."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from equiconv.bench import OPS, bench_long_conv_step, bench_orchid, harness, orchid_runtime
from equiconv.bench.harness import Entry, Timing


@pytest.mark.parametrize("projections", [True, False])
@pytest.mark.parametrize("length", [16, 21])
@pytest.mark.parametrize("conditioning", bench_orchid.TYPES)
def test_contestants_compute_the_same(conditioning: str, length: int, projections: bool) -> None:
    case = bench_orchid.case(length, conditioning, "backward", projections=projections)
    small = replace(case, batch=2, channels=3, dtype="float64")
    for contestant in bench_orchid.MIXERS:
        assert harness.error(OPS["orchid"], Entry(small, contestant)) < 1e-12, contestant


def test_promises_are_judged_at_their_worst_point(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"equiconv": 1, "eager": 3}
    monkeypatch.setattr(bench_orchid, "peak_of", lambda kind, *setting: peaks[kind])
    seconds = {"equiconv": 1.0, "eager": 5.0}
    results = {entry: Timing((seconds[entry.contestant],)) for g in bench_orchid.groups() for entry in g}
    assert all(promise.verdict(results).kept for promise in bench_orchid.PROMISES)
    slow = bench_orchid.case(16384, "I", "backward")
    results[Entry(slow, "eager")] = Timing((3.9,))
    peaks["equiconv"] = 2
    verdicts = [promise.verdict(results) for promise in bench_orchid.PROMISES]
    assert [verdict.kept for verdict in verdicts] == [True, False, True, True, False, False]
    assert verdicts[1].case == slow


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_counts_what_a_step_allocates() -> None:
    """At least its result, (16, 1024, 256) of float32."""
    assert bench_orchid.peak_of("equiconv", "forward", "II", 1024) > 16 * 1024 * 256 * 4


def test_runtime_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--longest", "256", "--seconds", "0.01", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["orchid_runtime", *arguments])
    orchid_runtime.main()
    document = json.loads((tmp_path / "runtime.json").read_text())
    for found in document["seconds"].values():
        assert set(found) == set(orchid_runtime.NAMES)
        for curve in found.values():
            assert list(curve) == ["128", "256"]
            assert min(curve.values()) > 0
    assert (tmp_path / "runtime.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("filter", harness.FILTERS)
@pytest.mark.parametrize("gates", [False, True])
def test_contestants_decode_the_same(filter: str, gates: bool) -> None:
    case = replace(bench_long_conv_step.DECODED, length=130, batch=2, channels=3, filter=filter, gates=gates)
    for contestant in OPS["long_conv_step"].contestants:
        for dtype, error in (("float64", 1e-12), ("bfloat16", harness.TOLERANCE["bfloat16"])):
            entry = Entry(replace(case, dtype=dtype), contestant)
            assert harness.error(OPS["long_conv_step"], entry) < error, entry
