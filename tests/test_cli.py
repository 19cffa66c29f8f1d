"""The command line, the benchmark harness and the demo."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import equiconv
from equiconv.__main__ import main
from equiconv.bench import OPS, allocator, harness, promises
from equiconv.bench.cli import positive
from equiconv.bench.harness import Case, Entry, Timing
from equiconv.demo import compare, text
from equiconv.demo.compare import Run
from equiconv.demo.train import CONVOLUTIONS

TINY_BENCH = ["bench", "--lengths", "16,20", "--batch", "2", "--channels", "3", "--seconds", "0.01"]
TINY_DEMO = ["--length", "64", "--batch", "2", "--channels", "8", "--blocks", "1", "--threads", "1"]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def without_extras(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return python(
        "import sys; sys.modules['rich'] = sys.modules['matplotlib'] = None\n"
        f"from equiconv.__main__ import main; sys.exit(main({arguments!r}))"
    )


# ---- info ----


def test_info_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert equiconv.__version__ in printed
    assert "cpu capability" in printed


def test_info_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == equiconv.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts.keys() >= equiconv.build_info().keys()


# ---- bench ----


def test_bench_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: tmp_path / f"result.{kind}" for kind in ("json", "csv", "png")}
    outputs = ["--json", str(files["json"]), "--csv", str(files["csv"]), "--plot", str(files["png"])]
    settings = ["--op", "fft_conv,spectral_conv", "--layout", "bld", "--dtype", "float32,bfloat16"]
    assert main([*TINY_BENCH, *settings, *outputs, "--check"]) == 0
    printed = capsys.readouterr().out
    assert "handwritten" in printed
    assert "allocator default" in printed

    document = json.loads(files["json"].read_text())
    assert document["machine"]["torch"] == torch.__version__
    # ops, directions, dtypes, lengths, contestants
    assert len(document["results"]) == 2 * 2 * 2 * 2 * 3
    for row in document["results"]:
        assert row["median"] >= row["fastest"] > 0
        assert row["repeats"] >= 5
        assert row["error"] <= harness.TOLERANCE[row["dtype"]]
        assert (row["times_equiconv"] == 1) == (row["contestant"] == "equiconv")
    with files["csv"].open() as file:
        assert [float(row["median"]) for row in csv.DictReader(file)] == [
            row["median"] for row in document["results"]
        ]
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_bench_without_baselines_and_gates() -> None:
    assert main([*TINY_BENCH, "--baselines", "none", "--no-gates", "--filter", "shared,per-sample"]) == 0


def test_bench_predicts_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "h200", "--lengths", "1k,64k", "--dtype", "float32,bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert "H200" in printed
    assert "8 × 8192" in printed
    assert "binds" in printed


def test_bench_refuses_to_time_wrong_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(harness.TOLERANCE, "float32", -1.0)
    assert main([*TINY_BENCH, "--check"]) == 1
    assert "is off by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bench", "--lengths", "1k,4z"], "'4z' is not a positive size such as 4096, 4k or 1M."),
        (["bench", "--lengths", "0"], "'0' is not a positive size such as 4096, 4k or 1M."),
        (["bench", "--dtype", "float8"], "'float8' is not one of float32, float64, bfloat16, float16."),
        (
            ["bench", "--op", "matmul"],
            "'matmul' is not one of fft_conv, spectral_conv, short_conv, short_conv_gated, gate,",
        ),
        (["bench", "--preset", "promises", "--device", "cuda"], "--preset promises is about the CPU"),
        (["bench", "--seconds", "-1"], "--seconds must be positive."),
        (["bench", "--json", "no/such/folder/file"], "is not a folder."),
        (["bench", "--json", "."], ". cannot be written: it is a folder."),
        (["bench", "--csv", "."], ". cannot be written: it is a folder."),
        (["bench", "--plot", "."], ". cannot be written: it is a folder."),
        (["bench", "--plot", "curve.nonsense"], "--plot curve.nonsense: matplotlib writes"),
        (
            ["bench", "--lengths", "1k,2048M"],
            "--lengths must be at most 1073741824, but one is 2147483648.",
        ),
        (
            ["bench", "--lengths", "1k", "--channels", "1024M"],
            "fft_conv of B x D x L = 8 x 1073741824 x 1024 takes 163,840 GiB, but there are",
        ),
        (["demo", "recall", "--length", "1"], "--length must be at least 4, for a key, its value, a sign"),
        (["demo", "recall", "--vocabulary", "1"], "--vocabulary must be at least 2, for a key and a value."),
        (["demo", "--seconds", "soon"], "'soon' is not a positive number."),
        (["demo", "--blocks", "0"], "'0' is not a positive whole number."),
        ([], "the following arguments are required"),
    ],
)
def test_bad_options_are_answered_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_bench_says_that_there_is_no_cuda_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY_BENCH, "--device", "cuda"]) == 2
    assert "torch finds no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["info"], TINY_BENCH])
def test_a_missing_extra_is_named(arguments: list[str]) -> None:
    result = without_extras(arguments)
    assert result.returncode == 2
    assert "this needs rich, which is not installed: pip install equiconv[bench]" in result.stderr


def test_restart_passes_arguments_and_keeps_other_tunables(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, command: started.append(command))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    assert not allocator.is_tuned()
    allocator.restart(["bench", "--lengths", "1k"])
    assert started == [[sys.executable, "-m", "equiconv", "bench", "--lengths", "1k"]]
    assert os.environ["GLIBC_TUNABLES"].startswith("glibc.malloc.check=0:")
    assert allocator.is_tuned()


@pytest.mark.skipif(not allocator.applies(), reason="not glibc")
def test_bench_restarts_itself_with_an_allocator_that_keeps_pages() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-m", "equiconv", *TINY_BENCH, "--baselines", "none"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert allocator.KEEP in " ".join(result.stdout.split())


# ---- the harness ----


def test_timing_is_a_median_and_its_spread() -> None:
    timing = Timing((1.0, 2.0, 3.0, 4.0, 100.0))
    assert timing.median == 3
    assert timing.spread == pytest.approx(1 / 3)  # quartiles 2 and 4
    assert Timing((2.0,)).spread == 0


def test_ratio_is_of_medians() -> None:
    case = Case(op="fft_conv", length=16, batch=1, channels=1)
    results = {
        Entry(case, "equiconv"): Timing((1.0, 2.0, 9.0)),
        Entry(case, "eager"): Timing((5.0, 6.0, 7.0)),
    }
    assert harness.ratio(results, case, "eager") == 3
    assert harness.ratio(results, case, "equiconv") == 1


def test_contestants_take_turns() -> None:
    calls: list[str] = []

    def named(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    def timer(run: Callable[[], object]) -> float:
        run()
        return float(len(calls))

    steps = {name: named(name) for name in "ab"}
    timings = harness.time_in_turns(steps, timer=timer, seconds=0, rounds=(3, 9))
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"
    assert timings == {"a": Timing((5.0, 8.0, 9.0)), "b": Timing((6.0, 7.0, 10.0))}


@pytest.mark.parametrize("length", [1, 1000, 2**10, 2**18, 2**20, 2**24])
def test_sizes_hold_the_number_of_elements(length: int) -> None:
    elements = harness.ELEMENTS["cpu"]
    batch, channels = harness.sizes(length, elements)
    assert batch >= 2
    assert batch * channels >= 4  # two rows for each of two threads
    assert batch * channels * length <= max(elements, 4 * length)


def test_sizes_are_read_as_people_write_them() -> None:
    assert [positive(size) for size in ("4096", "4k", "1M")] == [4096, 4096, 2**20]


@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize("filter", harness.FILTERS)
@pytest.mark.parametrize("layout", harness.LAYOUTS)
@pytest.mark.parametrize("length", [1, 16, 21])
@pytest.mark.parametrize(
    ("op", "mode"), [*(("fft_conv", mode) for mode in harness.MODES), ("spectral_conv", "circular")]
)
def test_contestants_compute_the_same(
    op: str, mode: str, length: int, layout: str, filter: str, gates: bool
) -> None:
    case = Case(
        op=op,
        length=length,
        batch=2,
        channels=3,
        dtype="float64",
        direction="backward",
        mode=mode,
        layout=layout,
        filter=filter,
        gates=gates,
    )
    for contestant in OPS[op].contestants:
        assert harness.error(OPS[op], Entry(case, contestant)) < 1e-12, contestant


@pytest.mark.parametrize("length", [16, 21])
def test_contestants_take_a_real_spectrum(length: int) -> None:
    x = torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True)
    spectrum = torch.randn(3, length // 2 + 1, dtype=torch.float64, requires_grad=True)
    grad_out = torch.randn_like(x)
    grads = [
        torch.autograd.grad(contestant(x, spectrum), (x, spectrum), grad_out)
        for contestant in OPS["spectral_conv"].contestants.values()
    ]
    for others in grads[1:]:
        torch.testing.assert_close(others, grads[0])


# ---- the promises ----


def fake_results(seconds: Callable[[Entry], float]) -> harness.Results:
    return {entry: Timing((seconds(entry),)) for group in promises.groups() for entry in group}


def test_promises_are_judged_at_their_worst_point() -> None:
    def seconds(entry: Entry) -> float:
        time = entry.case.length.bit_length() - 1
        return time * {"equiconv": 1.0, "eager": 6.0, "handwritten": 3.0}[entry.contestant]

    results = fake_results(seconds)
    assert all(promise.verdict(results).kept for promise in promises.PROMISES)

    slow = promises.base_case(promises.LENGTHS[2], "backward")
    results[Entry(slow, "eager")] = Timing((4.9 * seconds(Entry(slow, "equiconv")),))
    first, *others = (promise.verdict(results) for promise in promises.PROMISES)
    assert not first.kept
    assert first.case == slow
    assert first.value == pytest.approx(4.9)
    assert all(verdict.kept for verdict in others)


def test_growth_is_measured_against_shorter_lengths() -> None:
    results = fake_results(lambda entry: 1.0)
    growth = promises.PROMISES[-1]
    assert growth.verdict(results).value < 1  # the same time for longer sequences: better than L log L
    longest = promises.growth_case(promises.GROWTH_LENGTHS[-1], "forward")
    results[Entry(longest, "equiconv")] = Timing((5.0,))
    verdict = growth.verdict(results)
    assert not verdict.kept
    assert verdict.case == longest


def test_promised_cases_are_distinct() -> None:
    entries = [entry for group in promises.groups() for entry in group]
    assert len(entries) == len(set(entries))


# ---- the demo ----


def test_demo_end_to_end(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "equiconv", "demo", "--seconds", "3", *TINY_DEMO, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    printed = " ".join(result.stdout.split())
    assert "At equal steps the losses agree" in printed
    assert "In short:" in printed

    document = json.loads((tmp_path / "losses.json").read_text())
    assert document["agreement"]["holds"]
    assert set(document["runs"]) == set(CONVOLUTIONS)
    for run in document["runs"].values():
        assert len(run["losses"]) == len(run["seconds"]) >= 1
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_demo_needs_no_extra(tmp_path: Path) -> None:
    result = without_extras(["demo", "--seconds", "0.5", *TINY_DEMO, "--out", str(tmp_path / "new")])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "for a picture: pip install equiconv[bench]" in result.stdout
    assert (tmp_path / "new" / "losses.json").exists()
    assert not (tmp_path / "new" / "losses.png").exists()


def test_runs_agree_only_within_rounding() -> None:
    one = Run(losses=[5.0, 4.0, 3.0], seconds=[1.0, 2.0, 3.0])
    assert compare.agreement(one, one).holds
    longer = replace(one, losses=[*one.losses, 2.0], seconds=[*one.seconds, 4.0])
    assert compare.agreement(one, longer).steps == 3
    for losses in ([5.1, 4.0, 3.0], [5.0, 4.1, 3.0], [float("nan")] * 3):
        assert not compare.agreement(one, replace(one, losses=losses)).holds


def test_speed_leaves_out_the_first_step() -> None:
    assert Run(losses=[1.0] * 3, seconds=[10.0, 10.5, 11.0]).steps_per_second == 2
    assert Run(losses=[1.0], seconds=[0.5]).steps_per_second == 2


def test_text_is_the_same_every_time() -> None:
    (train, validation), again = text.load(), text.load()
    assert torch.equal(train, again[0])
    assert torch.equal(validation, again[1])
    assert train.max() < text.SYMBOLS
    x, following = text.batch(train, 2, 8, torch.Generator().manual_seed(0))
    assert torch.equal(x[:, 1:], following[:, :-1])


def test_entropy_of_equally_frequent_symbols() -> None:
    assert text.unigram_entropy(torch.arange(8, dtype=torch.uint8)) == pytest.approx(3)
