"""The CUDA kernels of pair_moments, run on the CPU by tests/cuda_on_cpu: what its contract does not reach."""

from __future__ import annotations

from typing import Any

import contract
import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.pair_moments import pair_moments
from test_pair_message import random_graph
from test_pair_moments import SAMPLES, reference
from torch import Tensor

from equiconv import Graph

BY_NAME = {sample.name: sample for sample in SAMPLES}


def results(device: Device, tensors: dict[str, Tensor], graph: Graph) -> list[Tensor]:
    """The result and the gradients."""
    grad_out = contract.random_like(reference(**tensors, graph=graph))
    found = pair_moments(device, tensors, {"graph": graph}, grad_out)
    assert device.report() == ""
    return found


@pytest.mark.parametrize("name", ["odd", "one-receiver", "shared-large", "strided-large"])
def test_the_order_of_threads_does_not_matter(emulator: Device, name: str) -> None:
    tensors = contract.detached(BY_NAME[name].make(torch.float32, "cpu"))
    graph = BY_NAME[name].options["graph"]
    emulator.report()
    emulator.schedule("forward")
    first = results(emulator, tensors, graph)
    for schedule in ("reverse", "random:1", "warp:3"):
        emulator.schedule(schedule)
        contract.assert_same_bits(results(emulator, tensors, graph), first)
    emulator.schedule("forward")


def test_what_is_not_finite_stays_with_its_neighbours(emulator: Device) -> None:
    """NaN in one point is in the results of its receivers and the gradients of their pairs' basis alone."""
    graph = random_graph(25, 25, 60)
    tensors = {"x": torch.randn(25, 2, 20), "basis": torch.randn(60, 2, 6)}
    emulator.report()
    clean = results(emulator, tensors, graph)
    tensors["x"] = tensors["x"].clone()
    tensors["x"][3] = float("nan")
    out, grad_x, grad_basis = results(emulator, tensors, graph)
    of_point = graph.senders == 3
    reached = torch.zeros(25, dtype=torch.bool)
    reached[graph.receivers[of_point]] = True
    assert out[reached].isnan().all()
    assert grad_basis[of_point].isnan().all()
    contract.assert_same_bits(
        [out[~reached], grad_x, grad_basis[~of_point]],
        [clean[0][~reached], clean[1], clean[2][~of_point]],
    )


def test_the_basis_of_one_pair_stays_with_its_points(emulator: Device) -> None:
    graph = random_graph(25, 25, 60)
    tensors: dict[str, Any] = {"x": torch.randn(25, 2, 20), "basis": torch.randn(60, 2, 6)}
    emulator.report()
    clean = results(emulator, tensors, graph)
    tensors["basis"] = tensors["basis"].clone()
    tensors["basis"][7] = float("nan")
    out, grad_x, grad_basis = results(emulator, tensors, graph)
    receiver, sender = (torch.arange(25) == points[7] for points in (graph.receivers, graph.senders))
    assert out[receiver].isnan().all()
    assert grad_x[sender].isnan().all()
    contract.assert_same_bits(
        [out[~receiver], grad_x[~sender], grad_basis], [clean[0][~receiver], clean[1][~sender], clean[2]]
    )


def test_messages_of_some_orientations_at_a_time(emulator: Device) -> None:
    """16 pairs of 2^17 channels are 8 MB, so 4 orientations are 32: all that is kept; then one more."""
    graph = Graph.from_pairs(torch.zeros(16, dtype=torch.long), torch.zeros(16, dtype=torch.long), 1)
    x = torch.randn(1, 5, 2**17)
    basis, grad_out = torch.randn(16, 5, 1), torch.randn(1, 5, 1, 2**17)
    emulator.report()
    emulator.schedule("forward")
    out, grad_x, grad_basis = pair_moments(emulator, {"x": x, "basis": basis}, {"graph": graph}, grad_out)
    assert emulator.report() == ""
    total = basis.double().sum(0)[:, 0, None]
    torch.testing.assert_close(out[0, :, 0], (total * x[0]).float())
    torch.testing.assert_close(grad_x[0], (total * grad_out[0, :, 0]).float())
    expected = (x[0].double() * grad_out[0, :, 0]).sum(-1)
    torch.testing.assert_close(grad_basis[:, :, 0].double(), expected.expand(16, 5), rtol=1e-3, atol=0.1)


def test_each_is_one_launch_and_the_gradient_of_x_two(race_detector: Device) -> None:
    """The sums over 2500 pairs of 500 points in clouds of five, of which a few stand for all here."""
    graph = Graph.complete([5] * 5)
    tensors = {"x": torch.randn(25, 2, 8), "basis": torch.randn(graph.num_pairs, 2, 4)}
    race_detector.report()
    grad_out = torch.randn(25, 2, 4, 8)
    pair_moments(race_detector, tensors, {"graph": graph}, grad_out)
    kernels = {row.kernel.partition("<")[0] for row in race_detector.memory_table()}
    assert race_detector.report() == ""
    assert kernels == {"moments", "pair_products", "sum_messages"}
