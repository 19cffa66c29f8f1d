from __future__ import annotations

import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from equiconv.ops.gelu_linear import gelu_linear


def inputs(*lead: int) -> list[torch.Tensor]:
    shapes = ((*lead, 5), (3, 5), (3,))
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def test_values_and_gradients() -> None:
    for lead in ((7,), (2, 4), (0,), (0, 3)):
        given = inputs(*lead)
        ours, theirs = gelu_linear(*given), F.linear(F.gelu(given[0]), *given[1:])
        grad_out = torch.randn_like(ours)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(
            torch.autograd.grad(ours, given, grad_out), torch.autograd.grad(theirs, given, grad_out)
        )


def test_derivatives() -> None:
    given = tuple(inputs(2, 3))
    assert gradcheck(gelu_linear, given, check_forward_ad=True)
    assert gradgradcheck(gelu_linear, given)


def test_keeps_its_arguments_only() -> None:
    given = inputs(50)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gelu_linear(*given)
    assert sorted(kept) == sorted(tensor.data_ptr() for tensor in given)


def test_autocast_and_transforms() -> None:
    given = [t.detach().float() for t in inputs(6)]
    with torch.autocast("cpu", torch.bfloat16):
        assert gelu_linear(*given).dtype == torch.bfloat16
    ours, theirs = (
        torch.func.jacrev(lambda x, f=f: f(x, *given[1:]))(given[0])
        for f in (gelu_linear, lambda x, w, b: F.linear(F.gelu(x), w, b))
    )
    torch.testing.assert_close(ours, theirs)
