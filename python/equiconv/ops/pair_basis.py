"""``pair_basis``: the network that makes basis functions of a pair's features, some pairs at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import _register_namedtuple

from ..reference import pair_basis as reference
from .check import MaybeTensor, require, text
from .registration import differentiated, needed, under_autocast

__all__ = ["BasisNetwork", "pair_basis"]

_OP = "pair_basis"


class BasisNetwork(NamedTuple):
    """A basis that is computed where it is needed: the arguments of :func:`pair_basis`, in their order.

    Given to :func:`pair_message` in the place of a basis, it saves the memory of (E, O, K).
    """

    features: Tensor
    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    window: MaybeTensor = None

    def basis(self) -> Tensor:
        """All of it: (E, O, K), or (E, K)."""
        return pair_basis(*self)

    def of(self, pairs: slice | Tensor) -> BasisNetwork:
        """The same of some pairs only."""
        window = None if self.window is None else self.window[pairs]
        return self._replace(features=self.features[pairs], window=window)

    def under_autocast(self) -> BasisNetwork:
        if not autocasts(self.features):
            return self
        return self._replace(**{name: under_autocast(tensor) for name, tensor in self._asdict().items()})


_register_namedtuple(BasisNetwork, serialized_type_name="equiconv.BasisNetwork")
torch.serialization.add_safe_globals([BasisNetwork])  # tensors and nothing else


def pair_basis(
    features: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
    window: Tensor | None = None,
) -> Tensor:
    r"""The values of K functions at every pair.

    .. math:: \text{window} \cdot \text{GELU}(W_2\, \text{GELU}(W_1 \text{features} + b_1) + b_2)

    It is computed for some pairs at a time, so that what lies between the layers stays in the caches;
    backward computes that anew instead of keeping it. Under torch.compile and torch.func, and where a
    derivative is differentiated again, it is one expression of whole tensors.

    Args:
        features: (E, O, F) or (E, F), or any (E, …, F). float32, float64, bfloat16 or float16.
        first_weight, first_bias: (H, F) and (H,), W₁ and b₁. The dtype of features.
        second_weight, second_bias: (K, H) and (K,), W₂ and b₂. The dtype of features.
        window: (E,), the cut-off of each pair; None: 1. The dtype of features.

    Returns:
        (E, O, K) or (E, K). Derivatives of every order are supported.

    Raises:
        ValueError: an argument breaks one of the rules above; the sentence names it and its value.

    The filters of Bekkers et al. (2024, arXiv:2310.02970), before the layer that is each convolution's own.
    """
    network = BasisNetwork(features, first_weight, first_bias, second_weight, second_bias, window)
    network = network.under_autocast()
    check_network(_OP, network)
    with no_autocast(features):
        if takes_whole_tensors():
            return reference.pair_basis(*network)
        basis: Tensor = _PairBasis.apply(*network)  # type: ignore[no-untyped-call]
        return basis


def check_network(op: str, network: BasisNetwork) -> None:
    features, first_weight, first_bias, second_weight, second_bias, window = network
    require(
        features.is_floating_point(),
        lambda: f"{op}: features must have a floating dtype, but is {text(features.dtype)}",
    )
    require(
        features.dim() >= 2,
        lambda: f"{op}: features must be (E, …, F), but has shape {tuple(features.shape)}",
    )
    wanted: list[tuple[str, MaybeTensor, tuple[int | str, ...]]] = [
        ("first_weight", first_weight, ("H", features.shape[-1])),
        ("first_bias", first_bias, (first_weight.shape[0],)),
        ("second_weight", second_weight, ("K", first_weight.shape[0])),
        ("second_bias", second_bias, (second_weight.shape[0],)),
        ("window", window, (features.shape[0],)),
    ]
    for name, tensor, shape in wanted:
        if tensor is None:
            continue
        fits = tensor.dim() == len(shape) and all(
            isinstance(want, str) or have == want for have, want in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            written = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
            raise ValueError(f"{op}: {name} must have shape {written}, but has {tuple(tensor.shape)}")
        if tensor.dtype != features.dtype:
            raise ValueError(
                f"{op}: {name} must have the dtype of features, {text(features.dtype)}, "
                f"but has {text(tensor.dtype)}"
            )
        if tensor.device != features.device:
            raise ValueError(
                f"{op}: {name} must be on the device of features, {features.device}, "
                f"but is on {tensor.device}"
            )


def autocasts(tensor: Tensor) -> bool:
    return not tensor.is_meta and torch.is_autocast_enabled(tensor.device.type)


def no_autocast(tensor: Tensor) -> Any:
    if not autocasts(tensor):
        return contextlib.nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def takes_whole_tensors() -> bool:
    """Where tensors are not plain ones, or derivatives are taken forward."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


# Entries of what lies between the layers, by the type of device. On a CPU 4 MB, a share of an outer cache:
# with a quarter of that the calls themselves cost a third, with four times as much nothing is gained. On a
# GPU enough to fill it.
_TILE = {"cpu": 2**20}
_TILE_ELSEWHERE = 2**26


def pairs_together(network: BasisNetwork) -> int:
    """How many pairs are taken at a time."""
    features = network.features
    rows = features[0].numel() // max(1, features.shape[-1]) if len(features) else 1
    entries = rows * sum(network.second_weight.shape)
    return max(1, _TILE.get(features.device.type, _TILE_ELSEWHERE) // max(1, entries))


class Tiled:
    """The gradients of a network, summed over tiles of its pairs."""

    def __init__(self, network: BasisNetwork, needs: Sequence[bool]) -> None:
        self.network, self.needs = network, needs
        _, *weights, _ = network
        self.leaves = [weight.detach().requires_grad_() for weight in weights]
        self.sums: list[MaybeTensor] = [
            # Of weights float32 at least, as they are summed over many tiles.
            torch.zeros(t.shape, dtype=torch.promote_types(t.dtype, torch.float32), device=t.device)
            if need and t is not None
            else None
            for t, need in zip(network, needs, strict=True)
        ]

    def backward(self, pairs: Any, gradient: Callable[[Tensor], Tensor]) -> None:
        """Of some pairs, a slice or an index, whose basis has a gradient: what `gradient` says of it."""
        features, *_, window = self.network
        inputs: list[Any] = [
            None if t is None else t[pairs].detach().requires_grad_(need)
            for t, need in ((features, self.needs[0]), (window, self.needs[5]))
        ]
        given = [inputs[0], *self.leaves, inputs[1]]
        with torch.enable_grad():
            basis = reference.pair_basis(*given)
        grad_basis = gradient(basis.detach())
        wanted = [t for t, total in zip(given, self.sums, strict=True) if total is not None]
        if not wanted:
            return
        grads = iter(torch.autograd.grad(basis, wanted, grad_basis))
        for i, total in enumerate(self.sums):
            if total is None:
                continue
            if i in (0, 5):
                total[pairs] = next(grads).to(total.dtype)
            else:
                total += next(grads)

    def results(self) -> Iterator[MaybeTensor]:
        for total, argument in zip(self.sums, self.network, strict=True):
            yield None if total is None or argument is None else total.to(argument.dtype)


class _PairBasis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *network: Any) -> Tensor:
        ctx.save_for_backward(*network)
        whole = BasisNetwork(*network)
        basis = whole.features.new_empty(*whole.features.shape[:-1], whole.second_weight.shape[0])
        for pairs in _tiles(whole):
            basis[pairs] = reference.pair_basis(*whole.of(pairs))
        return basis

    @staticmethod
    def backward(ctx: Any, grad_basis: Tensor) -> tuple[MaybeTensor, ...]:
        saved = ctx.saved_tensors  # once: to ask for them may be to compute them again
        network, needs = BasisNetwork(*saved), needed(ctx, saved)
        if differentiated(grad_basis):
            return gradients(reference.pair_basis, network, needs, grad_basis)
        tiled = Tiled(network, needs)
        for pairs in _tiles(network):
            tiled.backward(pairs, functools.partial(_rows, grad_basis, pairs))
        return tuple(tiled.results())


def _rows(grad_basis: Tensor, pairs: slice, basis: Tensor) -> Tensor:
    return grad_basis[pairs]


def gradients(
    function: Callable[..., Tensor],
    inputs: Sequence[MaybeTensor],
    needs: Sequence[bool],
    grad_out: Tensor,
) -> tuple[MaybeTensor, ...]:
    """The gradients of function(*inputs) that are needed; in grad mode, to be differentiated again."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, because one input may have been made of another, and partial derivatives are wanted.
        aliases = [None if t is None else t.view_as(t) for t in inputs]
        wanted = [t for t, need in zip(aliases, needs, strict=True) if need and t is not None]
        out = function(*aliases)
    grads = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=again))
    return tuple(
        next(grads) if need and t is not None else None for t, need in zip(aliases, needs, strict=True)
    )


def _tiles(network: BasisNetwork) -> Iterator[slice]:
    step = pairs_together(network)
    return (slice(start, start + step) for start in range(0, len(network.features), step))
