"""Microbenchmarks of equiconv against PyTorch: ``python -m equiconv bench``.

``harness`` says what is timed and how, ``bench_<op>`` what an op is compared with, ``promises`` what
the library claims of itself; ``report`` and ``plot`` show the result.
"""

from .bench_fft_conv import FFT_CONV
from .bench_spectral_conv import SPECTRAL_CONV
from .harness import Op

OPS: dict[str, Op] = {op.name: op for op in (FFT_CONV, SPECTRAL_CONV)}

__all__ = ["OPS"]
