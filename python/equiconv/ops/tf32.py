"""Whether float32 products may be rounded to TF32, for CUDA kernels: torch's stable ABI cannot be asked."""

from __future__ import annotations

import torch

__all__: list[str] = []

_LIBRARY = torch.library.Library("equiconv", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("tf32_is_allowed() -> bool")  # type: ignore[no-untyped-call]


def _tf32_is_allowed() -> bool:
    """What torch's own matrix products go by, at the time of the call."""
    precision: str = torch.backends.cuda.matmul.fp32_precision
    return precision == "tf32"


_LIBRARY.impl("tf32_is_allowed", _tf32_is_allowed, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]
