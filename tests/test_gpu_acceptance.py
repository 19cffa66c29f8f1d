"""bench/gpu_acceptance.sh without a GPU: the whole dry run, and what happens when a part fails."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "bench"
ALL = ["build", "smoke", "contract", "sanitizer", "benchmark", "model", "graph", "streams", "profile"]


def load(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return document


def test_dry_run(tmp_path: Path) -> None:
    """Every part, in order; a second run has nothing left to do."""
    command = [str(BENCH / "gpu_acceptance.sh"), str(tmp_path), "--dry-run", "--seconds", "1200"]
    environment = os.environ | {"PYTHON": sys.executable}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    log = (tmp_path / "log.txt").read_text()
    assert run.returncode == 0, run.stdout + log[-3000:]
    parts = load(tmp_path)["parts"]
    assert list(parts) == ALL
    assert all(part["status"] == "passed" for part in parts.values())
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "log.txt"}

    contract = parts["contract"]["results"]
    assert contract["tests"] > contract["skipped"]
    assert contract["failed"] == []
    assert all(error < 0.02 for error in parts["sanitizer"]["results"]["errors"].values())
    assert set(parts["benchmark"]["results"]["ceilings"]) == {
        "copy_bytes",
        "product_bfloat16",
        "product_float32",
    }
    for row in parts["model"]["results"]["rows"]:
        assert row["measured"] > 0
        assert row["eager"] > 0
        assert row["times_floor"] > 0
    assert len(parts["streams"]["results"]["calls"]) == len(parts["graph"]["results"]["seconds"])
    for tool in ("compute-sanitizer --error-exitcode 9", "--tool racecheck", "ncu --clock-control none"):
        assert tool in log
    assert run.stdout.splitlines()[-1] == str(tmp_path / "results.json")
    assert "contract   passed" in run.stdout

    start = time.monotonic()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert "…" not in again.stdout
    assert load(tmp_path)["parts"] == parts
    assert time.monotonic() - start < 60


# ---- parts that go wrong -----------------------------------------------------------------------------------


@pytest.fixture
def acceptance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_acceptance", BENCH / "gpu_acceptance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_acceptance", module)  # dataclasses look there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GRACE", 1.0)
    monkeypatch.setattr(module, "DRY_LIMITS", 1)
    return module


def part(module: ModuleType, name: str, code: str, limit: float = 60, **kind: Any) -> Any:
    """A part that runs code, which has `write(…)`."""
    head = "import json, os, sys, time; write = lambda r: open(sys.argv[1], 'w').write(json.dumps(r)); "

    def commands(run: Any) -> list[Any]:
        return [module.Command([sys.executable, "-c", head + code, str(run.part_file)])]

    return module.Part(name, limit, commands, **kind)


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, parts: Sequence[Any], *arguments: str) -> int:
    monkeypatch.setattr(module, "PARTS", tuple(parts))
    return int(module.main([*arguments, "--dry-run"]))


def test_a_part_that_fails_takes_nothing_with_it(
    acceptance: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    parts = [
        part(acceptance, "good", "write({'tables': [[['shown', 1]]]})"),
        part(acceptance, "crash", "write({'half': 1}); os.abort()"),
        part(acceptance, "hang", "write({'half': 2}); print('here', flush=True); time.sleep(600)", 3),
        part(acceptance, "deaf", "import signal; signal.signal(2, 1); time.sleep(600)", 3),
        part(acceptance, "optional", "sys.exit(3)", may_fail=True),
        part(acceptance, "last", "write({})"),
    ]
    assert run(acceptance, monkeypatch, parts, str(tmp_path)) == 1
    found = load(tmp_path)["parts"]
    statuses = {name: record["status"] for name, record in found.items()}
    assert statuses == {
        "good": "passed",
        "crash": "exit status -6",
        "hang": "timed out",
        "deaf": "timed out",
        "optional": "exit status 3",
        "last": "passed",
    }
    assert found["crash"]["results"] == {"half": 1}
    assert found["hang"]["results"] == {"half": 2}
    assert "here" in found["hang"]["last_lines"]
    printed = capfd.readouterr().out
    assert "shown  1" in printed
    assert "hang      timed out" in printed

    # What passed is left alone; what did not is tried again.
    mended = [
        parts[0],
        *(part(acceptance, name, "write({'whole': 1})") for name in statuses if name != "good"),
    ]
    assert run(acceptance, monkeypatch, mended, str(tmp_path)) == 0
    assert load(tmp_path)["parts"]["hang"]["results"] == {"whole": 1}
    printed = capfd.readouterr().out
    assert "good …" not in printed
    assert "last …" not in printed

    assert run(acceptance, monkeypatch, mended, str(tmp_path), "--only", "good") == 0
    printed = capfd.readouterr().out
    assert "good …" in printed
    assert "crash …" not in printed
    assert run(acceptance, monkeypatch, mended, str(tmp_path), "--from", "optional") == 0
    printed = capfd.readouterr().out
    assert [name for name in statuses if f"{name} …" in printed] == ["optional", "last"]


def test_without_what_is_needed_the_rest_is_not_run(
    acceptance: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def lacks(run: Any) -> list[Any]:
        raise acceptance.Missing("a tool was not found")

    parts = [acceptance.Part("first", 9, lacks, needed=True), part(acceptance, "second", "write({})")]
    assert run(acceptance, monkeypatch, parts, str(tmp_path)) == 1
    printed = capfd.readouterr().out
    assert "first   a tool was not found" in printed
    assert "second  not run" in printed


def test_no_part_runs_past_the_end(
    acceptance: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = [part(acceptance, name, "time.sleep(600)") for name in "ab"]
    start = time.monotonic()
    assert run(acceptance, monkeypatch, parts, str(tmp_path), "--seconds", "2") == 1
    assert time.monotonic() - start < 60
    assert {record["status"] for record in load(tmp_path)["parts"].values()} == {"timed out"}


def test_results_of_other_sources_are_not_continued(
    acceptance: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = [part(acceptance, "a", "write({})")]
    assert run(acceptance, monkeypatch, parts, str(tmp_path)) == 0
    document = load(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(document | {"sources": "others"}))
    with pytest.raises(SystemExit, match="is of other sources; give another folder"):
        run(acceptance, monkeypatch, parts, str(tmp_path))


def test_a_tool_must_say_that_it_found_nothing(acceptance: ModuleType, tmp_path: Path) -> None:
    """A sanitizer that did not run would also end well."""
    where = acceptance.Run(tmp_path, False)
    for printed, problem in (("ERROR SUMMARY: 0 errors", ""), ("ERROR SUMMARY: 3 errors", "did not print")):
        command = acceptance.Command(
            [sys.executable, "-c", f"print({printed!r})"], ["env"], r"ERROR SUMMARY: 0 errors"
        )
        assert acceptance.execute(command, where, 60)[0].startswith(problem)


@pytest.mark.parametrize(("installed", "asked"), [
    ("0.11.6", "0.11"), ("1.0.3", "1.0"), ("1.1.2", None), ("2.0.0rc1", None), ("1.10", None),
])  # fmt: skip
def test_an_older_build_backend_is_told_that_it_will_do(
    acceptance: ModuleType, installed: str, asked: str | None
) -> None:
    assert acceptance.older_backend(installed) == asked


def test_it_ends_within_nine_minutes(acceptance: ModuleType) -> None:
    assert acceptance.SECONDS + 20 < 540  # its last part may be asked to end, and be killed


def test_what_ncu_writes_is_read(acceptance: ModuleType, tmp_path: Path) -> None:
    where = acceptance.Run(tmp_path, False)
    where.report_file.write_text(
        "==PROF== Connected to process 1\n"
        '"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","1","convolve(int)","gpu__time_duration.sum","us","1,234.5"\n'
        '"0","1","convolve(int)","launch__registers_per_thread","register/thread","96"\n'
    )
    assert acceptance.profile_results(where)["kernels"] == [
        {"kernel": "convolve", "time": "1,234.5 us", "registers": "96 register/thread"}
    ]
    where.report_file.write_text("==ERROR== no permission\n")
    with pytest.raises(ValueError, match="ncu found no kernel"):
        acceptance.profile_results(where)
