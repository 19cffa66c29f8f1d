"""Convolutions whose filters are made on the fly, fused."""

import os
from pathlib import Path
from typing import Any

import torch  # first: its libraries must be in the process before ours

if tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 11):
    raise ImportError(f"equiconv: torch must be 2.11 or newer, but is {torch.__version__}")
try:
    import equiconv._C as _C  # `from . import` would not raise ModuleNotFoundError
except ModuleNotFoundError as error:
    raise ImportError(
        "equiconv: its compiled libraries are missing for this Python; install it with pip "
        "(importing it from its source folder is not enough)"
    ) from error


def _load() -> bool:
    """Load the libraries, which register the ops; tell whether the CUDA one is among them."""
    folder = Path(_C.__file__).parent
    torch.ops.load_library(str(folder / "_equiconv_cpu.so"))  # type: ignore[no-untyped-call]
    wanted = torch.version.cuda is not None or os.environ.get("EQUICONV_LOAD_CUDA") == "1"
    cuda = folder / "_equiconv_cuda.so"
    if not (wanted and _C.build_info["nvcc"] and cuda.exists()):
        return False
    torch.ops.load_library(str(cuda))  # type: ignore[no-untyped-call]
    return True


_cuda_loaded = _load()
__version__: str = _C.build_info["version"]


def build_info() -> dict[str, Any]:
    """How this equiconv was built and what it uses here.

    `nvcc` is None in a build without CUDA kernels; `cuda_loaded` tells whether they are in use: they are
    where torch has CUDA (or where EQUICONV_LOAD_CUDA=1, for inspection).
    """
    return {**_C.build_info, "torch": torch.__version__, "cuda_loaded": _cuda_loaded}


from . import drop_in, geometry, nn, reference  # noqa: E402
from .graph import Graph  # noqa: E402
from .ops.conditioned_conv import conditioned_conv  # noqa: E402
from .ops.fft_conv import fft_conv  # noqa: E402  the ops wrap what the libraries registered
from .ops.fft_conv_packed import fft_conv_packed  # noqa: E402
from .ops.fibre_conv import fibre_conv  # noqa: E402
from .ops.gate import gate  # noqa: E402
from .ops.implicit_filter import implicit_filter  # noqa: E402
from .ops.pair_basis import BasisNetwork, pair_basis  # noqa: E402
from .ops.pair_invariants import fibre_invariants, pair_invariants  # noqa: E402
from .ops.pair_message import pair_message  # noqa: E402
from .ops.pair_moments import pair_moments  # noqa: E402
from .ops.short_conv import short_conv, short_conv_gated, short_conv_state, short_conv_step  # noqa: E402
from .ops.spectral_conv import spectral_conv  # noqa: E402

__all__ = [
    "BasisNetwork",
    "Graph",
    "__version__",
    "build_info",
    "conditioned_conv",
    "drop_in",
    "fft_conv",
    "fft_conv_packed",
    "fibre_conv",
    "fibre_invariants",
    "gate",
    "geometry",
    "implicit_filter",
    "nn",
    "pair_basis",
    "pair_invariants",
    "pair_message",
    "pair_moments",
    "reference",
    "short_conv",
    "short_conv_gated",
    "short_conv_state",
    "short_conv_step",
    "spectral_conv",
]
