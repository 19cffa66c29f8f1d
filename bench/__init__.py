"""Microbenchmarks of equiconv against PyTorch: ``python -m equiconv bench``.

``harness`` says what is timed and how, ``bench_<op>`` what an op is compared with, ``promises`` what
the library claims of itself; ``model`` predicts, ``report`` and ``plot`` show the result.
"""

from collections.abc import Callable
from types import ModuleType

from . import (
    bench_conditioned_conv,
    bench_gate,
    bench_implicit_filter,
    bench_long_conv_step,
    bench_orchid,
    bench_pair_invariants,
    bench_pair_message,
    bench_pair_moments,
    bench_ponita,
    bench_short_conv,
    model_conditioned_conv,
    model_fft_conv,
    model_gate,
    model_implicit_filter,
    model_long_conv_step,
    model_orchid_mix,
    model_pair_invariants,
    model_pair_message,
    model_pair_moments,
    model_short_conv,
    model_spectral_conv,
    promises,
)
from .bench_conditioned_conv import CONDITIONED_CONV
from .bench_fft_conv import FFT_CONV
from .bench_gate import GATE
from .bench_implicit_filter import IMPLICIT_FILTER
from .bench_long_conv_step import LONG_CONV_STEP
from .bench_orchid import ORCHID
from .bench_orchid_mix import ORCHID_MIX
from .bench_pair_invariants import PAIR_INVARIANTS
from .bench_pair_message import PAIR_MESSAGE
from .bench_pair_moments import PAIR_MOMENTS
from .bench_ponita import PONITA
from .bench_short_conv import SHORT_CONV, SHORT_CONV_GATED
from .bench_spectral_conv import SPECTRAL_CONV
from .harness import Case, Op
from .model import Device, Prediction

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        FFT_CONV,
        SPECTRAL_CONV,
        CONDITIONED_CONV,
        SHORT_CONV,
        SHORT_CONV_GATED,
        LONG_CONV_STEP,
        IMPLICIT_FILTER,
        GATE,
        ORCHID,
        ORCHID_MIX,
        PAIR_MESSAGE,
        PAIR_MOMENTS,
        PAIR_INVARIANTS,
        PONITA,
    )
}
# With cases of their own, and promises to hold them against.
PRESETS: dict[str, ModuleType] = {
    "promises": promises,
    "conditioned_conv": bench_conditioned_conv,
    "short_conv": bench_short_conv,
    "long_conv_step": bench_long_conv_step,
    "gate": bench_gate,
    "implicit_filter": bench_implicit_filter,
    "orchid": bench_orchid,
    "pair_message": bench_pair_message,
    "pair_moments": bench_pair_moments,
    "pair_invariants": bench_pair_invariants,
    "ponita": bench_ponita,
}
MODELS: dict[str, Callable[[Case, Device], Prediction]] = {
    "fft_conv": model_fft_conv.predict,
    "spectral_conv": model_spectral_conv.predict,
    "short_conv": model_short_conv.predict,
    "short_conv_gated": model_short_conv.predict,
    "gate": model_gate.predict,
    "pair_message": model_pair_message.predict,
    "pair_moments": model_pair_moments.predict,
    "pair_invariants": model_pair_invariants.predict,
    "conditioned_conv": model_conditioned_conv.predict,
    "long_conv_step": model_long_conv_step.predict,
    "orchid_mix": model_orchid_mix.predict,
    "implicit_filter": model_implicit_filter.predict,
}

__all__ = ["MODELS", "OPS", "PRESETS"]
