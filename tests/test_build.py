"""What the build promises: a sentence within seconds where something is missing, and sound binaries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch

import equiconv

ROOT = Path(__file__).parent.parent
CAPABILITIES = ("baseline", "avx2", "avx512", "avx512_bf16", "amx")
BINARIES = Path(equiconv._C.__file__).parent
VARIABLES = ("EQUICONV_CPU_CAPABILITY", "EQUICONV_TORCH_DIR")
CUDA_BUILT = equiconv.build_info()["nvcc"] is not None


def run(
    code: str, *arguments: str, python: Path | str = sys.executable, **variables: str
) -> tuple[bool, str]:
    """Whether the code ran through in a fresh interpreter, and the last line that it printed."""
    start = time.monotonic()
    done = subprocess.run(
        [str(python), "-c", code, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in VARIABLES} | variables,
        text=True,
        capture_output=True,
    )
    assert time.monotonic() - start < 30
    ran = done.returncode == 0
    return ran, (done.stdout if ran else done.stderr).strip().splitlines()[-1]


# ---- what a build lacks -----------------------------------------------------------------------------


# As pip runs a build that it isolates: the interpreter of the environment, but none of its packages.
LOOK_FOR_TORCH = """
import sys
sys.path = ["build_support"] + [p for p in sys.path if "-packages" not in p]
import find_torch
print(*find_torch.find_torch())
"""


def look_for_torch(python: Path | str = sys.executable, **variables: str) -> tuple[bool, str]:
    return run(LOOK_FOR_TORCH, python=python, **{"PIP_BUILD_TRACKER": "set", "PYTHONPATH": "", **variables})


def torch_package(folder: Path, version: str, headers: bool = True) -> Path:
    torch = folder / "torch"
    torch.mkdir(parents=True)
    (torch / "version.py").write_text(f"__version__ = '{version}'\n")
    if headers:
        library = torch / "include/torch/csrc/stable/library.h"
        library.parent.mkdir(parents=True)
        library.touch()
    return torch


def environment(folder: Path) -> Path:
    """A virtual environment without anything in it; its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def test_installed_torch_is_found_although_the_build_cannot_import_it() -> None:
    ran, found = look_for_torch()
    assert ran, found
    assert found == f"{Path(torch.__file__).parent} {torch.__version__}"


def test_torch_is_looked_for_only_where_it_is_installed_into(tmp_path: Path) -> None:
    packages = environment(tmp_path / "here")
    torch_package(environment(tmp_path / "active"), "2.13.0")
    python = tmp_path / "here/bin/python"
    ran, sentence = look_for_torch(python, VIRTUAL_ENV=str(tmp_path / "active"))
    assert not ran
    assert f"no torch is installed in {tmp_path / 'here'}; install torch 2.11 or newer there" in sentence
    there = torch_package(packages, "2.12.1+cpu")
    assert look_for_torch(python, VIRTUAL_ENV=str(tmp_path / "active")) == (True, f"{there} 2.12.1+cpu")


def test_front_end_that_makes_an_environment_for_the_build(tmp_path: Path) -> None:
    """Ours is that environment; the process that starts us runs in the one that has torch."""
    there = torch_package(environment(tmp_path / "target"), "2.14.0")
    environment(tmp_path / "build")
    find = [str(tmp_path / "build/bin/python"), "build_support/find_torch.py"]
    code = (
        "import os, subprocess; os.environ.pop('PIP_BUILD_TRACKER', None); "
        f"print(subprocess.check_output({find}, text=True))"
    )
    assert run(code, python=tmp_path / "target/bin/python", PYTHONPATH="") == (True, f"{there};2.14.0")


@pytest.mark.parametrize(
    ("version", "headers", "sentence"),
    [
        ("2.10.1", True, "must be 2.11 or newer, but is 2.10.1; upgrade it first"),
        ("1.13.0+cu117", True, "must be 2.11 or newer, but is 1.13.0+cu117; upgrade it first"),
        ("2.13.0", False, "has no C++ headers; install torch from a wheel"),
    ],
)
def test_torch_that_will_not_do(tmp_path: Path, version: str, headers: bool, sentence: str) -> None:
    folder = torch_package(tmp_path, version, headers)
    ran, last = look_for_torch(EQUICONV_TORCH_DIR=str(folder))
    assert not ran
    assert last.endswith(f"torch in {folder} {sentence}")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"EQUICONV_TORCH_DIR": "/nowhere"}, "EQUICONV_TORCH_DIR is /nowhere, which holds no torch package"),
        (
            {"PATH": "", "CXX": ""},
            "no C++ compiler was found; install GCC 12 or Clang 14 or newer, or set CXX",
        ),
        ({"CXX": "no-such-compiler -O1"}, "CXX is no-such-compiler, which was not found; install GCC 12"),
    ],
)
@pytest.mark.parametrize("hook", ["get_requires_for_build_wheel", "prepare_metadata_for_build_editable"])
def test_backend_says_what_is_missing(
    tmp_path: Path, hook: str, variables: dict[str, str], sentence: str
) -> None:
    stand_in = tmp_path / "scikit_build_core"  # which is no requirement of the tests
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "build.py").write_text("def __getattr__(name): return lambda: None")
    code = f"import sys; sys.path.append('build_support'); import backend; backend.{hook}()"
    ran, last = run(code, **{"PYTHONPATH": str(tmp_path), **variables})
    assert not ran
    assert last.startswith(f"equiconv: {sentence}")


# ---- what was built ---------------------------------------------------------------------------------


def info(**variables: str) -> tuple[bool, str]:
    return run("import equiconv, json; print(json.dumps(equiconv.build_info()))", **variables)


def test_capabilities_can_be_forced() -> None:
    detected = equiconv.build_info()["cpu_detected"]
    for capability in CAPABILITIES[: CAPABILITIES.index(detected) + 1]:
        ran, printed = info(EQUICONV_CPU_CAPABILITY=capability)
        assert ran, printed
        assert json.loads(printed) == equiconv.build_info() | {"cpu_capability": capability}
    for capability in CAPABILITIES[CAPABILITIES.index(detected) + 1 :]:
        ran, sentence = info(EQUICONV_CPU_CAPABILITY=capability)
        assert not ran
        assert sentence.endswith(f"CAPABILITY is {capability}, but this machine has only {detected}")


def test_unknown_capability_is_a_sentence() -> None:
    ran, sentence = info(EQUICONV_CPU_CAPABILITY="sse9")
    assert not ran
    assert sentence == (
        "ImportError: equiconv: EQUICONV_CPU_CAPABILITY must be baseline, avx2, avx512, avx512_bf16 or amx, "
        "but is sse9"
    )


def test_capability_is_fixed_at_import() -> None:
    """A later change of the environment does not part the kernels from what build_info says."""
    code = (
        "import os, torch, equiconv; os.environ['EQUICONV_CPU_CAPABILITY'] = 'sse9'; "
        "equiconv.fft_conv(torch.ones(1, 1, 4), torch.ones(1, 4)); "
        "print(equiconv.build_info()['cpu_capability'])"
    )
    assert run(code) == (True, equiconv.build_info()["cpu_detected"])


def test_sources_alone_are_not_enough(tmp_path: Path) -> None:
    package = tmp_path / "equiconv"
    package.mkdir()
    (package / "__init__.py").write_text((ROOT / "python/equiconv/__init__.py").read_text())
    ran, sentence = run("import sys; sys.path.insert(0, sys.argv[1]); import equiconv", str(tmp_path))
    assert not ran
    assert sentence.startswith("ImportError: equiconv: its compiled libraries are missing for this Python")


def test_old_torch_is_a_sentence(tmp_path: Path) -> None:
    torch_package(tmp_path, "2.10.0")
    (tmp_path / "torch/__init__.py").write_text("__version__ = '2.10.0'")
    ran, sentence = run("import equiconv", PYTHONPATH=str(tmp_path))
    assert not ran
    assert sentence == "ImportError: equiconv: torch must be 2.11 or newer, but is 2.10.0"


@pytest.mark.parametrize("binary", sorted(BINARIES.glob("*.so")), ids=lambda path: path.name.split(".")[0])
def test_binaries_do_not_tell_where_they_were_built(binary: Path) -> None:
    content = binary.read_bytes()
    for folder in {ROOT, Path(sys.prefix), Path(torch.__file__).parent, Path.home()}:
        assert f"{folder}/".encode() not in content


@pytest.mark.skipif(not CUDA_BUILT, reason="built without CUDA kernels")
def test_cuda_library_loads_into_any_torch() -> None:
    """It registers a CUDA kernel for every op that has a CPU kernel, and disturbs nothing. Those of
    spectral_conv, conditioned_conv and orchid_mix are chosen from Python."""
    code = """if True:
        import json, torch, equiconv
        ops = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("equiconv::")]
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        kernels = {name: [has(name, "CPU"), has(name, "CUDA")] for name in ops}
        y = equiconv.fft_conv(torch.ones(1, 1, 4), torch.ones(1, 4))
        print(json.dumps([equiconv.build_info()["cuda_loaded"], kernels, y.tolist()]))
    """
    ran, printed = run(code, EQUICONV_LOAD_CUDA="1")
    assert ran, printed
    loaded, kernels, y = json.loads(printed)
    assert loaded
    assert kernels
    on_cpu_only = {name.partition("::")[2] for name, (cpu, cuda) in kernels.items() if cpu and not cuda}
    assert on_cpu_only == set()
    on_cuda_only = {name.partition("::")[2] for name, (cpu, cuda) in kernels.items() if cuda and not cpu}
    assert on_cuda_only == {
        f"{op}_{part}"
        for op in ("spectral_conv", "conditioned_conv", "orchid_mix")
        for part in ("fuses", "fused", "fused_backward")
    }
    assert y[0][0] == pytest.approx([1, 2, 3, 4])
