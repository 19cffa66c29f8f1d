"""pair_invariants by its CUDA launchers, for the contract: as csrc/ops/pair_invariants.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiconv.reference.pair_invariants import pair_invariants as reference

from .device import Device
from .pair_cases import Rows, launch
from .pair_message import rows

FEATURES = 128


class PairInvariants(c.Structure):
    """equiconv::PairInvariants of csrc/pair_invariants.h, as those below."""

    _fields_ = [
        *((name, c.c_int64) for name in ("pairs", "orientations")),
        *((name, c.c_int32) for name in ("dimensions", "geometric", "attributes", "features")),
        ("space", c.c_int8),
        *((name, c.c_bool) for name in ("senders", "complete", "smooth")),
        *((name, c.c_uint8 * FEATURES) for name in ("shorter", "last")),
    ]


class PairPoints(c.Structure):
    _fields_ = [(name, Rows) for name in ("rel", "receiver", "sender", "extra")]


class PairInvariantsForward(c.Structure):
    _fields_ = [("at", PairPoints), ("out", Rows)]


class PairInvariantsBackward(c.Structure):
    _fields_ = [
        ("grad_out", Rows),
        *((name, PairPoints) for name in ("at", "change")),
        ("out", Rows),
        ("grad", PairPoints),
    ]


def size_of(device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> PairInvariants:
    rel, grid, extra = (tensors.get(name) for name in ("rel", "grid", "extra"))
    assert rel is not None
    senders = "sender" in tensors
    complete = senders and options.get("complete", False)
    space = rel.shape[1] - 1 if grid is not None or senders else 0
    geometric = (2 if space else 1) + senders + complete
    size = PairInvariants(
        *(rel.shape[0], 1 if grid is None else grid.shape[0], rel.shape[1]),
        *(geometric, geometric + (0 if extra is None else extra.shape[1]), 0),
        *(space, senders, complete, options.get("smooth", False)),
    )
    assert device.lib.pair_invariants_monomials(c.byref(size), c.c_int64(options["degree"]))
    return size


def points(tensors: Mapping[str, Tensor], places: Mapping[str, int]) -> PairPoints:
    made = {name: rows(t, places[name]) for name, t in tensors.items() if name != "grid"}
    if "grid" in tensors:
        grid = rows(tensors["grid"], places["grid"])
        made["receiver"] = Rows(grid.data, grid.dtype, 0, grid.row, grid.entry)
    return PairPoints(**made)


def pair_invariants(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order; that of the grid, for which there is no
    kernel, by autograd."""
    return _run(device, tensors, options, grad_out, {})


def tangent(
    device: Device,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    grad_out: Tensor,
    changes: Mapping[str, Tensor],
) -> list[Tensor]:
    """What the result and the gradients of all tensors but the grid change by."""
    return _run(device, tensors, options, grad_out, changes)


def _run(
    device: Device,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    grad_out: Tensor,
    changes: Mapping[str, Tensor],
) -> list[Tensor]:
    size = size_of(device, tensors, options)
    own = [name for name in tensors if name != "grid"]
    results = {"out": torch.zeros(grad_out.shape, dtype=grad_out.dtype)}
    results |= {name: torch.zeros(tensors[name].shape, dtype=grad_out.dtype) for name in own}
    if grad_out.numel():  # else the binding launches nothing
        places = {n: device.upload(t, n) for n, t in tensors.items()}
        changed = {n: device.upload(t, f"change_{n}") for n, t in changes.items()}
        written = {
            n: device.upload(torch.full_like(t, float("nan")), f"grad_{n}") for n, t in results.items()
        }
        given, out = points(tensors, places), rows(results["out"], written["out"])
        grads = points({n: results[n] for n in own}, written)
        gradient = rows(grad_out, device.upload(grad_out, "grad_out"))
        if changes:
            change = points(changes, changed)
            both = PairInvariantsBackward(gradient, given, change, out, grads)
            launch(device, "pair_invariants_backward", size, both)
        else:
            launch(device, "pair_invariants", size, PairInvariantsForward(given, out))
            backward = PairInvariantsBackward(grad_out=gradient, at=given, grad=grads)
            launch(device, "pair_invariants_backward", size, backward)
        for name, tensor in results.items():
            device.download(written[name], tensor)
        device.free_all()
    if "grid" in tensors and not changes:
        grid = tensors["grid"].detach().requires_grad_()
        y = reference(**{**tensors, "grid": grid}, **options)
        (results["grid"],) = torch.autograd.grad(y, grid, grad_out)
    return [results["out"], *(results[name] for name in tensors if name in results)]
