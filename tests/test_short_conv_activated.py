from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import contract
import torch
from contract import Op, Refusal
from test_short_conv import COMMON, REFUSALS, random_samples, samples
from torch import Tensor
from torch.nn import functional

from equiconv.reference import short_conv as reference

OF_ACTIVATION = (
    Refusal("short_conv: activation must be silu or gelu, but is relu", options={"activation": "relu"}),
    Refusal(
        "short_conv: x must be float32, float64, bfloat16 or float16, but is complex64",
        {"x": lambda x: x.to(torch.complex64)},
    ),
)


def activated_squares(
    x: Tensor,
    filter: Tensor,
    *,
    bias: Tensor | None = None,
    activation: str,
    at: Mapping[str, Tensor],
    **form: Any,
) -> Tensor:
    p = reference.short_conv(**at, **form).requires_grad_()  # type: ignore[arg-type]
    y = functional.silu(p) if activation == "silu" else functional.gelu(p)
    (slope,) = torch.autograd.grad(y.sum(), p)
    return y.detach().square() + slope.square() * reference.short_conv(x, filter, bias=bias, **form)


class TestContract(contract.Contract):
    op = Op(
        **COMMON,
        samples=samples(["silu", "gelu"]),
        refusals=(*REFUSALS, *OF_ACTIVATION),
        random=random_samples(("silu", "gelu")),
        groups=(),
        of_squares=activated_squares,
        nonlinear=True,
    )
