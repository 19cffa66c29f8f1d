"""What bfloat16 must keep to where a processor has a unit, or instructions, of its own for it."""

from __future__ import annotations

import contract
import pytest
import torch
from test_pair_message import simple_graph
from torch import Tensor

from equiconv import pair_message
from equiconv.graph import Graph
from equiconv.reference.pair_message import pair_message as reference

POINTS, DEGREE, ORIENTATIONS = 40, 9, 3
PAIRS = POINTS * DEGREE
SIZES = ((64, 64), (70, 65), (33, 200))  # functions, channels: those that fill tiles, and others


def arguments(functions: int, channels: int, *, shared: bool = False) -> tuple[Tensor, Tensor, Tensor, Graph]:
    rows = (PAIRS,) if shared else (PAIRS, ORIENTATIONS)
    x = torch.randn(POINTS, ORIENTATIONS, channels, dtype=torch.bfloat16)
    basis = torch.randn(*rows, functions, dtype=torch.bfloat16)
    weight = torch.randn(functions, channels, dtype=torch.bfloat16) / functions**0.5
    return x, basis, weight, simple_graph(POINTS, DEGREE)


def gradients(x: Tensor, basis: Tensor, weight: Tensor, graph: Graph, grad_out: Tensor) -> list[Tensor]:
    tensors = [t.detach().requires_grad_() for t in (x, basis, weight)]
    y = pair_message(*tensors, graph)
    return [y.detach(), *torch.autograd.grad(y, tensors, grad_out)]


def assert_rounded_once(y: Tensor, exact: Tensor) -> None:
    """Half a step of bfloat16, 2^-8 of the value, beside what float32 sums lose; NaN and infinity alike."""
    torch.testing.assert_close(y.double(), exact, rtol=1.01 * 2**-8, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shared", [False, True])
def test_results_are_rounded_once(sizes: tuple[int, int], shared: bool) -> None:
    """The result, and all gradients: whatever is multiplied, no product is rounded to bfloat16."""
    x, basis, weight, graph = arguments(*sizes, shared=shared)
    grad_out = torch.randn_like(x)
    results = gradients(x, basis, weight, graph, grad_out)
    doubles = [t.double().requires_grad_() for t in (x, basis, weight)]
    y = reference(*doubles, graph)
    exact = [y.detach(), *torch.autograd.grad(y, doubles, grad_out.double())]
    for result, wanted in zip(results, exact, strict=True):
        assert_rounded_once(result, wanted)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("shared", [False, True])
def test_same_bits(sizes: tuple[int, int], shared: bool) -> None:
    """For any number of threads, and in any order of the pairs."""
    x, basis, weight, graph = arguments(*sizes, shared=shared)
    grad_out = torch.randn_like(x)
    order = torch.randperm(PAIRS)
    moved = Graph.from_pairs(graph.senders[order], graph.receivers[order], POINTS)
    first = gradients(x, basis, weight, graph, grad_out)
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            contract.assert_same_bits(gradients(x, basis, weight, graph, grad_out), first)
            y, grad_x, grad_basis, grad_weight = gradients(x, basis[order], weight, moved, grad_out)
        finally:
            torch.set_num_threads(threads)
        contract.assert_same_bits(
            [y, grad_x, grad_basis, grad_weight], [*first[:2], first[2][order], first[3]]
        )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3.38e38, 1e-40])
def test_one_odd_value_changes_its_own_results_only(sizes: tuple[int, int], value: float) -> None:
    """Of an entry of the basis that is not finite, near the largest, or subnormal."""
    x, basis, weight, graph = arguments(*sizes)
    grad_out = torch.randn_like(x)
    clean = gradients(x, basis, weight, graph, grad_out)
    pair, o, k = 17, 1, 30
    basis[pair, o, k] = value
    y, grad_x, grad_basis, grad_weight = gradients(x, basis, weight, graph, grad_out)

    exact = reference(x.double(), basis.double(), weight.double(), graph)
    receiver, sender = graph.receivers[pair], graph.senders[pair]
    assert_rounded_once(y[receiver, o], exact[receiver, o])
    changed = torch.zeros(POINTS, ORIENTATIONS, dtype=torch.bool)
    changed[receiver, o] = True
    contract.assert_same_bits([y[~changed]], [clean[0][~changed]])
    changed[receiver, o], changed[sender, o] = False, True
    contract.assert_same_bits([grad_x[~changed]], [clean[1][~changed]])
    contract.assert_same_bits([grad_basis], [clean[2]])  # it does not depend on the basis
    rest = torch.arange(sizes[0]) != k
    # The odd row is added in another order, so what is rounded may differ by a rounding of float32.
    torch.testing.assert_close(grad_weight[rest], clean[3][rest], rtol=2**-7, atol=1e-5)
    if abs(value) > 1:
        wrong = ~grad_weight[k].isfinite() if abs(value) == float("inf") else grad_weight[k].abs() > 1e30
        assert wrong.all()
    elif value != value:
        assert grad_weight[k].isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_one_odd_weight_changes_its_own_channel_only(value: float) -> None:
    x, basis, weight, graph = arguments(64, 70)
    clean = pair_message(x, basis, weight, graph)
    weight[40, 33] = value
    y = pair_message(x, basis, weight, graph)
    exact = reference(x.double(), basis.double(), weight.double(), graph)[..., 33]
    assert_rounded_once(y[..., 33], exact)
    rest = torch.arange(70) != 33
    torch.testing.assert_close(y[..., rest], clean[..., rest], rtol=2**-7, atol=1e-6)
