"""What the dispatcher learns of an op beside its kernels: shapes, autograd, vmap, autocast, and what it says
where there is no kernel. So `torch.ops`, compiled and exported programs have it too."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from .check import MaybeTensor, refuse_elsewhere

TensorOrNone = TypeVar("TensorOrNone", Tensor, Tensor | None)

_library = torch.library.Library("equiconv", "FRAGMENT")  # type: ignore[no-untyped-call]
_NESTED = ("AutogradNestedTensor", "NestedTensorCPU", "NestedTensorCUDA")  # which the composite kernel is not
_AUTOCAST = (torch._C.DispatchKey.AutocastCPU, torch._C.DispatchKey.AutocastCUDA)


def register(
    op: Any,
    name: str,
    arguments: Sequence[str],
    *,
    fake: Callable[..., Any],
    autograd: Callable[..., Any],
    vmap: Callable[..., Any],
) -> None:
    """name: what a refusal calls the op. arguments: the names of its tensors, x, rel or z among them."""
    torch.library.register_fake(op.name(), fake, lib=_library)
    torch.library.register_vmap(op.name(), vmap, lib=_library)
    _library.impl(op, autograd, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    _refuse_elsewhere(op, name, arguments)


def _refuse_elsewhere(op: Any, name: str, arguments: Sequence[str]) -> None:
    """Wherever there is no kernel: one sentence instead of the dispatcher's page."""
    elsewhere = functools.partial(_elsewhere, name, arguments)
    for key in ("CompositeExplicitAutograd", *_NESTED):
        _library.impl(op, elsewhere, key)  # type: ignore[no-untyped-call]


def register_without_derivatives(
    op: Any, name: str, arguments: Sequence[str], fake: Callable[..., Any]
) -> None:
    """An op of states, which writes into an argument or makes what another one reads; name and arguments as
    for `register`."""
    torch.library.register_fake(op.name(), fake, lib=_library)
    _library.impl(op, torch.library.fallthrough_kernel, "Autograd")  # type: ignore[no-untyped-call]
    _refuse_elsewhere(op, name, arguments)


def _elsewhere(name: str, arguments: Sequence[str], *args: Any) -> NoReturn:
    refuse_elsewhere(name, dict(zip(arguments, args, strict=False)))


# ---- autograd ---------------------------------------------------------------------------------------------


class Function(torch.autograd.function._SingleLevelFunction):
    """torch.autograd.Function without its care for the levels of torch.func's transforms.

    An autograd kernel in the dispatcher, like PyTorch's own, is called once for each level anyway.
    """

    _compiled_autograd_key = staticmethod(torch.autograd.Function._compiled_autograd_key)


@contextlib.contextmanager
def forward_level(tensors: Sequence[MaybeTensor]) -> Iterator[list[Any]]:
    """Within a Function's jvp, where forward mode is off: on again for outer levels, of which tangents have
    tangents too, with the tensors as they are without those of this level."""
    with forward_ad._set_fwd_grad_enabled(True):
        unpack: Callable[[Tensor], Any] = forward_ad.unpack_dual
        yield [None if t is None else unpack(t).primal for t in tensors]


def needed(ctx: Any, tensors: Sequence[MaybeTensor]) -> list[bool]:
    """Which gradients are asked for while a Function's backward runs, of its first so many tensor arguments.

    Fewer than `ctx.needs_input_grad` has it where torch.autograd.grad is given some of the inputs: of an
    energy's first derivative, the forces, no weight's gradient is wanted. tensors: the arguments, None where
    absent.
    """
    functions = iter(ctx.next_functions)
    return [t is not None and _will_run(next(functions)[0]) for t in tensors]


def _will_run(function: Any) -> bool:
    if function is None:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(function))
    except RuntimeError:  # of a leaf that torch.autograd.grad was given
        return True


def differentiated(grad_out: Tensor) -> bool:
    """While a Function's backward runs: whether what it does is to be made of differentiable ops on whole
    tensors, as it will be differentiated, or is done for a batch of gradients at once (is_grads_batched)."""
    functorch = torch._C._functorch
    return (
        torch.is_grad_enabled()
        or functorch.is_legacy_batchedtensor(grad_out)
        or functorch.is_batchedtensor(grad_out)
    )


def autograd_kernel(
    op: Any, differentiate: Any, instead: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """What the dispatcher calls for autograd, once for each level of torch.func's transforms.

    differentiate: a Function, given what is below and the arguments. instead: what is called in its place
        where derivatives are asked for, unless it returns None.
    """

    def kernel(keyset: Any, *args: Any) -> Any:
        def below(*args: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

        def below_with_outer_levels(*args: Any) -> Any:
            # An autograd function runs with both modes off, but outer levels differentiate too.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return below(*args)

        reverse = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if not reverse and forward_ad._current_level < 0:
            return below(*args)
        if instead is not None and (result := instead(*args)) is not None:
            return result
        if not torch._C._are_functorch_transforms_active():
            return differentiate.apply(below, *args)
        with enable_single_level_autograd_function():
            return differentiate.apply(below_with_outer_levels, *args)

    return kernel


# ---- vmap -------------------------------------------------------------------------------------------------


def each_entry(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
    """For vmap, a call for each entry."""
    if info.batch_size == 0:
        return _no_entries(op, in_dims, *args)
    each = [op(*entry) for entry in _entries(args, in_dims, info.batch_size)]
    if isinstance(each[0], Tensor):
        return torch.stack(each), 0
    results = tuple(torch.stack(entries) for entries in zip(*each, strict=True))
    return results, (0,) * len(results)


def _no_entries(op: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
    """Results of the right shapes, of a call with zeros: sums of no entries, so that derivatives go on."""
    zeros = [
        arg if dim is None else arg.sum(dim, dtype=arg.dtype) for arg, dim in zip(args, in_dims, strict=True)
    ]
    results = op(*zeros)
    if isinstance(results, Tensor):
        return results[None][:0], 0
    return tuple(result[None][:0] for result in results), (0,) * len(results)


def _entries(args: Sequence[Any], dims: Sequence[int | None], size: int) -> Iterator[list[Any]]:
    """The arguments of each of vmap's `size` calls."""
    for i in range(size):
        yield [arg if dim is None else arg.select(dim, i) for arg, dim in zip(args, dims, strict=True)]


# ---- autocast ---------------------------------------------------------------------------------------------


def register_autocast(op: Any, count: int, weights: Sequence[int]) -> None:
    """Of the first `count` arguments, those at the positions `weights` stay float32."""

    def kernel(*args: Any) -> Any:
        tensors = [under_autocast(t, weight=i in weights) for i, t in enumerate(args[:count])]
        with no_autocast():
            return op(*tensors, *args[count:])

    for key in _AUTOCAST:
        _library.impl(op, kernel, key.name)  # type: ignore[no-untyped-call]


def under_autocast(tensor: TensorOrNone, *, weight: bool = False) -> TensorOrNone:
    """`tensor` as autocast wants it: in its dtype, but float64 as it is, and so a weight in float32."""
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    left_alone = tensor.dtype == torch.float64 or (weight and tensor.dtype == torch.float32)
    if left_alone or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def no_autocast() -> Any:
    """Derivatives are computed in the dtypes of what was saved, whatever autocast says meanwhile."""
    if not torch._C._is_any_autocast_enabled():
        return contextlib.nullcontext()
    cpu, cuda = map(torch._C.DispatchKeySet, _AUTOCAST)
    return torch._C._ExcludeDispatchKeyGuard(cpu | cuda)
