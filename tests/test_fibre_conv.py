"""fibre_conv."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from equiconv import fibre_conv


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_values_by_hand() -> None:
    x, basis, separate, mixing = double(2, 3, 4), double(3, 5, 6), double(6, 4), double(6, 4, 7)
    out, mixed = fibre_conv(x, basis, separate), fibre_conv(x, basis, mixing)
    assert out.shape == (2, 5, 4)
    assert mixed.shape == (2, 5, 7)
    for p in range(5):
        terms = [x[:, o] * (basis[o, p] @ separate) for o in range(3)]
        torch.testing.assert_close(out[:, p], sum(terms[1:], terms[0]) / 3)
        terms = [x[:, o] @ (basis[o, p] @ mixing.flatten(1)).view(4, 7) for o in range(3)]
        torch.testing.assert_close(mixed[:, p], sum(terms[1:], terms[0]) / 3)


@pytest.mark.parametrize("weight", [(4, 2), (4, 2, 3)])
def test_derivatives(weight: tuple[int, ...]) -> None:
    tensors = double(2, 3, 2), double(3, 3, 4), double(*weight)
    assert gradcheck(fibre_conv, tensors, fast_mode=True)
    assert gradgradcheck(fibre_conv, tensors, fast_mode=True)


def test_rounds_half_types_once(dtype: torch.dtype) -> None:
    tensors = [t.detach().to(dtype) for t in (double(5, 8, 16), double(8, 8, 9), double(9, 16))]
    exact = fibre_conv(*(t.double() for t in tensors))
    out = fibre_conv(*tensors)
    assert out.dtype == dtype
    error = (out.double() - exact).abs().max() / exact.abs().max()
    assert error < {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, torch.finfo(dtype).eps)


@pytest.mark.parametrize("sizes", [(0, 3, 2), (2, 3, 0), (2, 0, 2)])
def test_empty(sizes: tuple[int, int, int]) -> None:
    _, orientations, channels = sizes
    x, basis, weight = double(*sizes), double(orientations, orientations, 4), double(4, channels)
    assert fibre_conv(x, basis, weight).shape == sizes


GOOD = {"x": torch.zeros(2, 3, 4), "basis": torch.zeros(3, 3, 5), "weight": torch.zeros(5, 4)}
REFUSALS: list[tuple[dict[str, Tensor], str]] = [
    ({"x": torch.zeros(2, 3)}, "x must be (N, O, C), but has shape (2, 3)"),
    ({"x": torch.zeros(2, 3, 4).long()}, "x must have a floating dtype, but is int64"),
    ({"basis": torch.zeros(2, 3, 5)}, "basis must have shape (3, P, K), but has (2, 3, 5)"),
    ({"weight": torch.zeros(5, 3)}, "weight must have shape (5, 4) or (5, 4, D), but has (5, 3)"),
    ({"weight": torch.zeros(5, 4).double()}, "weight must have the dtype of x, float32, but has float64"),
    (
        {"basis": torch.zeros(3, 3, 5, device="meta")},
        "basis must be on the device of x, cpu, but is on meta",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSALS, ids=[sentence for _, sentence in REFUSALS])
def test_refuses(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^fibre_conv: ") as error:
        fibre_conv(**{**GOOD, **change})
    assert str(error.value) == f"fibre_conv: {sentence}"
