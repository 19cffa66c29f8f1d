"""Of several inputs that require gradients, those of the ones asked for are computed, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import equiconv
from equiconv import Graph
from equiconv.ops.gelu_linear import gelu_linear
from equiconv.ops.pair_basis import BasisNetwork, pair_basis

GRAPH = Graph.complete([3])


class Asked(TorchDispatchMode):
    """What the gradient ops that are called were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.needs: list[tuple[bool, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "equiconv" and func._schema.name.endswith("_backward"):
            self.needs.append(tuple(arg for arg in args if isinstance(arg, bool)))
        return func(*args, **(kwargs or {}))


def message(x: Tensor, basis: Tensor, weight: Tensor) -> Tensor:
    return equiconv.pair_message(x, basis, weight, GRAPH)


def recomputed(x: Tensor, weight: Tensor, *network: Tensor) -> Tensor:
    return equiconv.pair_message(x, BasisNetwork(*network), weight, GRAPH)


NETWORK = ((9, 2, 4), (5, 4), (5,), (6, 5), (6,))
CASES: dict[str, tuple[Callable[..., Tensor], Sequence[tuple[int, ...]]]] = {
    "pair_message": (message, ((3, 2, 4), (9, 2, 6), (6, 4))),
    "recomputed": (recomputed, ((3, 2, 4), (6, 4), *NETWORK)),
    "pair_basis": (pair_basis, NETWORK),
    "gelu_linear": (gelu_linear, ((7, 5), (3, 5), (3,))),
    "pair_invariants": (
        lambda rel, extra: equiconv.pair_invariants(rel, extra=extra, degree=2),
        ((4, 3), (4, 2)),
    ),
    "fft_conv": (lambda x, filter: equiconv.fft_conv(x, filter), ((2, 3, 8), (3, 8))),
    "short_conv_gated": (lambda x, filter: equiconv.short_conv_gated(x, filter)[0], ((2, 8, 9), (9, 3))),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_gradients(name: str, create_graph: bool) -> None:
    function, shapes = CASES[name]
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    out = function(*inputs)
    batch = torch.randn(3, *out.shape, dtype=torch.float64)
    options: dict[str, Any] = {"retain_graph": True, "create_graph": create_graph}
    together = torch.autograd.grad(out, inputs, batch, is_grads_batched=True, **options)
    each = [torch.autograd.grad(out, inputs, grad, **options) for grad in batch]
    for one, many in zip(together, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(one, torch.stack(many))
        assert one.requires_grad == many[0].requires_grad
    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(
        jacobian(function, tuple(inputs), vectorize=True), jacobian(function, tuple(inputs))
    )


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_one_gradient_at_a_time(name: str, leaves: bool, create_graph: bool) -> None:
    function, shapes = CASES[name]
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    out = function(*(inputs if leaves else [t * 1 for t in inputs])).square().sum()
    together = torch.autograd.grad(out, inputs, retain_graph=True)
    for i, (one, whole) in enumerate(zip(inputs, together, strict=True)):
        with Asked() as asked:
            (alone,) = torch.autograd.grad(out, one, retain_graph=True, create_graph=create_graph)
        torch.testing.assert_close(alone, whole, msg=lambda text, i=i: f"input {i}: {text}")
        if name in ("pair_message", "pair_invariants", "fft_conv", "short_conv_gated"):
            assert [sum(needs) for needs in asked.needs] == [1], (i, asked.needs)
    out.backward()
    torch.testing.assert_close([t.grad for t in inputs], list(together))
