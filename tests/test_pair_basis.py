"""pair_basis, and pair_message with a BasisNetwork in the place of a basis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import contract
import pytest
import torch
from test_pair_message import random_graph
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from equiconv import BasisNetwork, Graph, pair_basis, pair_message
from equiconv.nn import Ponita
from equiconv.ops import pair_basis as implementation
from equiconv.reference.pair_basis import pair_basis as reference

NAMES = ("features", "first_weight", "first_bias", "second_weight", "second_bias", "window")


def network(
    pairs: int, *orientations: int, hidden: int = 5, functions: int = 7, dtype: torch.dtype = torch.float64
) -> BasisNetwork:
    shapes = ((pairs, *orientations, 3), (hidden, 3), (hidden,), (functions, hidden), (functions,), (pairs,))
    return BasisNetwork(*(torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes))


def message(graph: Graph) -> Callable[..., Tensor]:
    return lambda x, weight, *network: pair_message(x, BasisNetwork(*network), weight, graph)


def stored(graph: Graph) -> Callable[..., Tensor]:
    return lambda x, weight, *network: pair_message(x, reference(*network), weight, graph)


def results(function: Callable[..., Tensor], inputs: Any) -> list[Tensor]:
    y = function(*inputs)
    return [
        y.detach(),
        *torch.autograd.grad(y, [t for t in inputs if t is not None], contract.random_like(y)),
    ]


@pytest.fixture(params=[1, 40, 10**6], ids=["pair-by-pair", "tiles", "one-tile"])
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "_TILE", {"cpu": request.param})


# ---- the basis ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("orientations", [(), (4,), (2, 3)])
def test_basis(orientations: tuple[int, ...]) -> None:
    given = network(9, *orientations)
    for inputs in (given, given._replace(window=None)):
        torch.testing.assert_close(results(pair_basis, inputs), results(reference, inputs))


def test_dtypes(dtype: torch.dtype) -> None:
    given = network(50, 3, dtype=dtype)
    ours = results(pair_basis, given)
    exact = results(reference, [t.detach().double().requires_grad_() for t in given])
    for a, b, argument in zip(ours, exact, (ours[0], *given), strict=True):
        assert a.dtype == argument.dtype
        torch.testing.assert_close(a.double(), b, rtol=0, atol=8 * torch.finfo(dtype).eps * b.abs().max())


@pytest.mark.usefixtures("_tile")
def test_derivatives_of_the_basis() -> None:
    given = tuple(network(5, 2))
    assert gradcheck(pair_basis, given, check_forward_ad=True)
    assert gradgradcheck(pair_basis, given, fast_mode=True)


def test_no_pairs() -> None:
    for value in results(pair_basis, network(0, 2)):
        assert not value.any()


def test_a_basis_keeps_only_its_arguments() -> None:
    given = network(500, 4, hidden=32, functions=32)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        pair_basis(*given)
    assert sum(kept) == sum(tensor.numel() for tensor in given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": torch.randn(3)}, "features must be (E, …, F), but has shape (3,)"),
        ({"features": torch.ones(5, 3).long()}, "features must have a floating dtype, but is int64"),
        ({"first_weight": torch.randn(5, 2)}, "first_weight must have shape (H, 3), but has (5, 2)"),
        ({"first_bias": torch.randn(4)}, "first_bias must have shape (5,), but has (4,)"),
        ({"second_weight": torch.randn(7, 4)}, "second_weight must have shape (K, 5), but has (7, 4)"),
        ({"second_bias": torch.randn(1)}, "second_bias must have shape (7,), but has (1,)"),
        ({"window": torch.randn(4)}, "window must have shape (6,), but has (4,)"),
        (
            {"window": torch.randn(6).double()},
            "window must have the dtype of features, float32, but has float64",
        ),
    ],
)
def test_refusals(change: dict[str, Tensor], sentence: str) -> None:
    wrong = network(6, 2, dtype=torch.float32)._replace(**change)
    graph = random_graph(4, 4, 6)
    for op, call in (
        ("pair_basis", lambda: pair_basis(*wrong)),
        ("pair_message", lambda: pair_message(torch.randn(4, 2, 3), wrong, torch.randn(7, 3), graph)),
    ):
        with pytest.raises(ValueError, match=r"^\w+: ") as error:
            call()
        assert str(error.value) == f"{op}: {sentence}"


# ---- messages ----------------------------------------------------------------------------------------------

SHAPES = [(9, 7, 30, 2), (6, 6, 25, 0), (1, 40, 12, 3), (40, 1, 12, 1)]


def inputs_of(senders: int, pairs: int, orientations: int, channels: int = 6) -> tuple[Tensor, ...]:
    shape = (senders, orientations, channels) if orientations else (senders, channels)
    tensors = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in (shape, (7, channels)))
    return *tensors, *network(pairs, *([orientations] if orientations else []))


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize(("senders", "receivers", "pairs", "orientations"), SHAPES)
def test_recomputed_messages(senders: int, receivers: int, pairs: int, orientations: int) -> None:
    graph = random_graph(senders, receivers, pairs)
    inputs = inputs_of(senders, pairs, orientations)
    torch.testing.assert_close(results(message(graph), inputs), results(stored(graph), inputs))


@pytest.mark.usefixtures("_tile")
def test_derivatives_of_recomputed_messages() -> None:
    graph = random_graph(4, 3, 6)
    inputs = inputs_of(4, 6, 2, 3)
    assert gradcheck(message(graph), inputs, check_forward_ad=True)
    assert gradgradcheck(message(graph), inputs, fast_mode=True)


@pytest.mark.usefixtures("_tile")
def test_each_gradient_alone() -> None:
    graph = random_graph(5, 6, 20)
    inputs = inputs_of(5, 20, 2)
    _, *everything = results(message(graph), inputs)
    for i, expected in enumerate(everything):
        only = [t if j == i else t.detach() for j, t in enumerate(inputs)]
        y = message(graph)(*only)
        (gradient,) = torch.autograd.grad(y, only[i], contract.random_like(y))
        contract.assert_same_bits([gradient], [expected])


def test_messages_without_pairs() -> None:
    for value in results(message(random_graph(3, 4, 0)), inputs_of(3, 0, 2)):
        assert not value.any()


def test_transforms_take_whole_tensors() -> None:
    graph = random_graph(4, 3, 6)
    inputs = inputs_of(4, 6, 2, 3)
    everything = tuple(range(len(inputs)))
    plain = [t.detach() for t in inputs]
    ours, theirs = (
        torch.func.grad(lambda *t, f=f: f(*t).square().sum(), argnums=everything)(*plain)
        for f in (message(graph), stored(graph))
    )
    torch.testing.assert_close(ours, theirs)
    compiled = torch.compile(message(graph), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(results(compiled, inputs), results(stored(graph), inputs))


def test_autocast() -> None:
    graph = random_graph(4, 3, 6)
    inputs = [t.detach().float().requires_grad_() for t in inputs_of(4, 6, 2, 3)]
    with torch.autocast("cpu", torch.bfloat16):
        y = message(graph)(*inputs)
        assert pair_basis(*inputs[2:]).dtype == torch.bfloat16
    assert y.dtype == torch.bfloat16
    grads = torch.autograd.grad(y, inputs, torch.ones_like(y))
    assert [g.dtype for g in grads] == [torch.float32] * len(inputs)
    torch.testing.assert_close(y.float(), stored(graph)(*inputs), rtol=0.05, atol=0.2)  # of 8 bits


def test_features_of_other_pairs() -> None:
    with pytest.raises(
        ValueError, match=r"^pair_message: features must have a row for each pair of graph, 6,"
    ):
        pair_message(torch.randn(4, 2, 3), network(5, 2), torch.randn(7, 3), random_graph(4, 3, 6))


def test_a_dense_weight_beside_a_network() -> None:
    graph = random_graph(4, 3, 6)
    with pytest.raises(ValueError, match=r"^pair_message: weight must be \(K, C\) beside a BasisNetwork"):
        pair_message(torch.randn(4, 2, 3), network(6, 2), torch.randn(7, 3, 3), graph)


@pytest.mark.parametrize("kind", [{}, {"num_ori": 0, "lift_graph": True}, {"num_ori": 0}])
def test_a_model_that_recomputes(kind: dict[str, Any]) -> None:
    """Same outputs, gradients and forces."""
    arguments = {"input_dim": 2, "hidden_dim": 8, "output_dim": 1, "num_layers": 2, "radius": 3.0}
    torch.manual_seed(0)
    models = [
        Ponita(**arguments, num_ori=kind.get("num_ori", 5), lift_graph="lift_graph" in kind, recompute=r)
        for r in (False, True)
    ]
    models[1].load_state_dict(models[0].state_dict())
    graph = Graph.complete([4, 3], self_loops="lift_graph" not in kind)
    pos, x = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    outcomes = []
    for model in models:
        model.double().eval()
        leaf = pos.clone().requires_grad_()
        energy = model(leaf, graph, x=x)[0].sum()
        (force,) = torch.autograd.grad(energy, leaf, create_graph=True)
        outcomes.append(
            [
                energy,
                force,
                *torch.autograd.grad(
                    force.square().sum(), list(model.parameters()), allow_unused=True, materialize_grads=True
                ),
            ]
        )
    torch.testing.assert_close(outcomes[1], outcomes[0])
