"""The definitions of the ops, in plain PyTorch: a module for each, loaded when it is first asked for."""

from importlib import import_module
from types import ModuleType

__all__ = [
    "conditioned_conv",
    "fft_conv",
    "fft_conv_packed",
    "fibre_conv",
    "gate",
    "implicit_filter",
    "long_conv_step",
    "orchid",
    "orchid_mix",
    "pair_basis",
    "pair_invariants",
    "pair_message",
    "pair_moments",
    "ponita",
    "short_conv",
    "spectral_conv",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
