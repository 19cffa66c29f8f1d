"""pair_message by its CUDA launchers, for the tests' contract: as csrc/ops/pair_message.cpp calls them."""

from __future__ import annotations

import ctypes as c
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiconv.graph import Csr

from .device import DTYPES, Device
from .pair_cases import (
    A_ROW_FOR_EACH_PAIR,
    Antipodes,
    PairAggregate,
    PairGradients,
    PairGroups,
    PairMessage,
    Rows,
    launch,
)


def rows(tensor: Tensor, pointer: int) -> Rows:
    orientation = tensor.stride(1) if tensor.dim() == 3 else 0
    return Rows(c.c_void_p(pointer), dtype_of(tensor), tensor.stride(0), orientation, tensor.stride(-1))


def dtype_of(tensor: Tensor) -> int:
    return DTYPES[str(tensor.dtype).removeprefix("torch.")]


def groups(device: Device, csr: Csr) -> PairGroups:
    pointers = [device.upload(t, name) for name, t in zip(csr._fields, csr, strict=True)]
    return PairGroups(*pointers, csr[0].dtype == torch.int64)


def pair_message(
    device: Device, tensors: Mapping[str, Tensor], options: Mapping[str, Any], grad_out: Tensor
) -> list[Tensor]:
    """The result, and the gradient of every tensor in their order."""
    x, basis, weight = tensors["x"], tensors["basis"], tensors["weight"]
    graph, antipode = options["graph"], options.get("antipode")

    size = PairMessage(
        *(graph.num_pairs, graph.num_senders, graph.num_receivers),
        *(x.shape[1] if x.dim() == 3 else 1, *weight.shape, basis.dim() == 2, False, A_ROW_FOR_EACH_PAIR),
    )
    results = {"out": x.new_zeros(graph.num_receivers, *x.shape[1:])}
    results |= {f"grad_{name}": torch.zeros(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    if min(size.pairs, size.orientations, size.functions, size.channels) == 0:
        return list(results.values())  # the binding launches nothing

    given = {n: rows(t, device.upload(t, n)) for n, t in {**tensors, "grad_out": grad_out}.items()}
    places = {n: device.upload(torch.full_like(t, float("nan")), n) for n, t in results.items()}
    written = {n: rows(t, places[n]) for n, t in results.items()}
    by_receiver, by_sender = groups(device, graph.by_receiver), groups(device, graph.by_sender)
    rows_by_receiver = by_receiver
    if antipode is not None:
        size.antipodes = Antipodes(graph.num_rows, device.upload(antipode, "antipode"))
        rows_by_receiver = groups(device, graph.one_way)

    both = given["basis"], given["weight"]
    sent = PairAggregate(size.receivers, by_receiver, given["x"], *both, written["out"])
    back = PairAggregate(size.senders, by_sender, given["grad_out"], *both, written["grad_x"])
    gradients = PairGradients(
        *(rows_by_receiver, given["grad_out"], given["x"], *both),
        *(written["grad_basis"], written["grad_weight"]),
    )
    launch(device, "pair_message_aggregate", size, sent)
    launch(device, "pair_message_aggregate", size, back)
    launch(device, "pair_message_gradients", size, gradients)
    for name, tensor in results.items():
        device.download(places[name], tensor)
    device.free_all()
    return list(results.values())
