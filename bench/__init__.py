"""Microbenchmarks of equiconv against PyTorch: ``python -m equiconv bench``.

``harness`` says what is timed and how, ``bench_<op>`` what an op is compared with, ``promises`` what
the library claims of itself; ``model`` predicts, ``report`` and ``plot`` show the result.
"""

from collections.abc import Callable

from . import model_fft_conv
from .bench_fft_conv import FFT_CONV
from .bench_spectral_conv import SPECTRAL_CONV
from .harness import Case, Op
from .model import Device, Prediction

OPS: dict[str, Op] = {op.name: op for op in (FFT_CONV, SPECTRAL_CONV)}
MODELS: dict[str, Callable[[Case, Device], Prediction]] = {"fft_conv": model_fft_conv.predict}

__all__ = ["MODELS", "OPS"]
