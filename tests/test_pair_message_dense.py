"""pair_message with a weight (K, C, D)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import contract
import pytest
import torch
from contract import Op, Refusal, Sample
from hypothesis import strategies as st
from test_pair_message import CLOUD, SHARED, random_graph
from test_pair_message import sample as depthwise
from torch import Tensor

from equiconv import pair_message
from equiconv.ops.pair_message import _Dense
from equiconv.reference.pair_message import pair_message as reference


def sample(name: str, *sizes: int, out: int, **kind: Any) -> Sample:
    """Senders, receivers, pairs, orientations, functions and channels, and channels of the result."""
    plain = depthwise(name, *sizes, **kind)
    return dataclasses.replace(
        plain, tensors={**plain.tensors, "weight": "KCD"}, sizes={**plain.sizes, "D": out}
    )


SAMPLES = (
    sample("bundle", 4, 3, 5, 2, 3, 3, out=2),
    sample("cloud", 4, 4, 7, 1, 3, 2, out=3, **CLOUD),
    sample("shared", 3, 3, 6, 2, 2, 3, out=2, **SHARED),
    sample("bipartite", 2, 5, 6, 3, 2, 2, out=3),
    sample("one-of-all", 1, 1, 1, 1, 1, 1, out=1),
    # Not among the small ones: PyTorch's forward mode asserts inside itself on gradients of such views.
    sample("strided", 5, 4, 9, 2, 3, 5, out=7, strided=True),
    sample("no-pairs", 3, 4, 0, 2, 3, 2, out=2),
    sample("no-points", 0, 0, 0, 2, 3, 2, out=2),
    sample("no-channels", 3, 3, 4, 2, 3, 0, out=2),
    sample("none-out", 3, 3, 4, 2, 3, 2, out=0),
    sample("no-functions", 3, 3, 4, 2, 0, 3, out=2),
    sample("odd", 30, 25, 131, 3, 17, 29, out=11),
    sample("cloud-large", 60, 50, 700, 1, 13, 20, out=33, **CLOUD),
    sample("shared-strided", 20, 20, 90, 3, 9, 12, out=17, strided=True, **SHARED),
    sample("float32-weight", 20, 20, 90, 3, 9, 12, out=17, float32=frozenset(["weight"])),
)

REFUSALS = (
    Refusal(
        "pair_message: weight must be (K, C) or (K, C, D), but has shape (3, 3, 2, 1)",
        {"weight": lambda w: w[..., None]},
    ),
    Refusal("pair_message: x must have a row for each sender of graph, 4, but has 3", {"x": lambda x: x[1:]}),
    Refusal("pair_message: weight must have the channels of x, 3, but has 2", {"weight": lambda w: w[:, :2]}),
    Refusal(
        "pair_message: weight must have the functions of basis, 3, but has 2", {"weight": lambda w: w[:2]}
    ),
    Refusal(
        "pair_message: basis must be on the device of x, {device}, but is on meta",
        {"basis": lambda b: b.to("meta")},
    ),
)


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    graph = options["graph"]
    args = (*tensors.values(), *graph.by_receiver, *graph.by_sender)
    grad_out = torch.randn_like(pair_message(**tensors, **options)).requires_grad_()
    yield torch.ops.equiconv.pair_message_dense.default, args
    yield torch.ops.equiconv.pair_message_dense_backward.default, (grad_out, *args, True, True, True)
    yield torch.ops.equiconv.pair_message_dense_backward.default, (grad_out, *args, False, True, False)


class TestContract(contract.Contract):
    op = Op(
        function=pair_message,
        threads=(1, 1),  # the matrix product is torch's, whose bits depend on them
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=st.sampled_from(SAMPLES),
        groups=(("x",), ("basis",), ("weight",)),
        grown=lambda sizes: {
            "S": sizes["S"] + 3,
            "R": sizes["R"] + 7,
            "E": sizes["E"] + 11,
            "K": sizes["K"] + 1,
            "C": sizes["C"] + 2,
            "D": sizes["D"] + 4,
        },
        weights=("weight",),
        exact=reference,
        of_squares=reference,
        dispatched=dispatched,
        capabilities=(),  # its kernels are those of pair_moments
    )


@pytest.mark.parametrize("room", [1, 300, 5000])
def test_any_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """One orientation and function at a time, or some, or all."""
    graph = random_graph(9, 8, 40)
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in ((9, 3, 5), (40, 3, 7), (7, 5, 4))]
    whole = pair_message(*tensors, graph)
    grads = torch.func.grad(lambda *t: pair_message(*t, graph).square().sum(), argnums=(0, 1, 2))(*tensors)
    monkeypatch.setattr(_Dense, "room", staticmethod(lambda given: room))
    torch.testing.assert_close(pair_message(*tensors, graph), whole)
    leaves = [t.requires_grad_() for t in tensors]
    pieces = torch.autograd.grad(pair_message(*leaves, graph).square().sum(), leaves)
    torch.testing.assert_close(pieces, grads)
