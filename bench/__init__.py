"""Microbenchmarks of equiconv against PyTorch: ``python -m equiconv bench``.

``harness`` says what is timed and how, ``bench_<op>`` what an op is compared with, ``promises`` what
the library claims of itself; ``model`` predicts, ``report`` and ``plot`` show the result.
"""

from collections.abc import Callable
from types import ModuleType

from . import bench_pair_message, model_fft_conv, promises
from .bench_fft_conv import FFT_CONV
from .bench_pair_message import PAIR_MESSAGE
from .bench_spectral_conv import SPECTRAL_CONV
from .harness import Case, Op
from .model import Device, Prediction

OPS: dict[str, Op] = {op.name: op for op in (FFT_CONV, SPECTRAL_CONV, PAIR_MESSAGE)}
SEQUENCE_OPS = ("fft_conv", "spectral_conv")  # whose cases are made from lengths
# With cases of their own, and promises to hold them against.
PRESETS: dict[str, ModuleType] = {
    "promises": promises,
    "pair_message": bench_pair_message,
}
MODELS: dict[str, Callable[[Case, Device], Prediction]] = {"fft_conv": model_fft_conv.predict}

__all__ = ["MODELS", "OPS", "PRESETS", "SEQUENCE_OPS"]
