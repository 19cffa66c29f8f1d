"""A PONITA of five layers against the published structure in eager PyTorch: time of a step, and memory.

    python -m equiconv bench --preset ponita

"backward" is a training step without its optimizer: outputs and the gradients of all parameters. With
``forces`` the outputs are forces, gradients of an energy by positions, which the step differentiates again.
``recompute`` is equiconv with a basis that is never stored. ``antipodal`` cases have undirected graphs and an
antipodal grid, so that equiconv has one basis row for both directions of a pair. What is promised is promised
of two threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equiconv.geometry import repulsion_sphere
from equiconv.nn import Ponita
from equiconv.reference.ponita import Ponita as Published

from .bench_pair_message import PairCase, graph
from .harness import DTYPES, Case, Entry, Inputs, Op, Results, ratio
from .promises import Point, Promise

MODELS: dict[str, Callable[..., nn.Module]] = {
    "equiconv": Ponita,
    "eager": Published,
    "recompute": lambda *args, **kwargs: Ponita(*args, **kwargs, recompute=True),
}
SCALARS = 3  # features of a point, and outputs: as many as a force has components


@dataclass(frozen=True, kw_only=True)
class ModelCase(PairCase):
    """A model of so many layers on the points of a PairCase."""

    op: str = "ponita"
    layers: int = 5
    forces: bool = False

    @property
    def sizes(self) -> dict[str, str]:
        task = {"trained on": "forces" if self.forces else "points"}
        return {**super().sizes, "layers": str(self.layers), **task}


def model(contestant: str, case: Case) -> nn.Module:
    assert isinstance(case, ModelCase)
    torch.manual_seed(0)
    made = MODELS[contestant](
        SCALARS,
        case.channels,
        1 if case.forces else SCALARS,
        case.layers,
        radius=4.0,
        num_ori=case.orientations,
        basis_dim=case.functions,
        task_level="graph" if case.forces else "node",
        grid=repulsion_sphere(case.orientations, antipodal=case.antipodal),
    )
    return made.to(case.device, DTYPES[case.dtype]).eval()


def inputs(case: Case) -> Inputs:
    """Features, positions, and the parameters, whose names are those of all models."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "x": torch.randn(case.length, SCALARS, generator=generator),
        "pos": torch.randn(case.length, 3, generator=generator),
    }
    parameters = {name: p.detach() for name, p in model("equiconv", case).named_parameters()}
    return {name: t.to(case.device, DTYPES[case.dtype]) for name, t in tensors.items()} | parameters


def contestant(name: str) -> Callable[..., Tensor]:
    def run(
        x: Tensor,
        pos: Tensor,
        *,
        case: ModelCase,
        net: dict[str, nn.Module],
        graph: Any,
        **parameters: Tensor,
    ) -> Tensor:
        def outputs() -> Tensor:
            made: Tensor = torch.func.functional_call(net[name], parameters, (pos, graph), {"x": x})[0]
            return made

        if not case.forces:
            return outputs()
        with torch.enable_grad():  # a force is a gradient, wanted or not
            energy = outputs().sum()
            (gradient,) = torch.autograd.grad(energy, pos, create_graph=True)
            return 0 * energy - gradient  # so that every parameter takes part, even one that moves nothing

    return run


def options(case: Case) -> dict[str, Any]:
    return {"case": case, "graph": graph(case), "net": {name: model(name, case) for name in MODELS}}


PONITA = Op(
    name="ponita",
    inputs=inputs,
    options=options,
    contestants={name: contestant(name) for name in MODELS},
    reference=contestant("eager"),
)


def saved_bytes(case: ModelCase, name: str) -> int:
    """Memory that a forward keeps for its backward, beside arguments and parameters."""
    leaves = {key: t.requires_grad_() for key, t in inputs(case).items()}
    given = {t.untyped_storage().data_ptr() for t in leaves.values()}
    kept: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = contestant(name)(**leaves, **options(case))
    del out
    return sum(kept.values())


# ---- the promises ------------------------------------------------------------------------------------------

THREADS = 2
BULK = ModelCase(length=1000, degree=16, orientations=16, functions=256, channels=128, direction="backward")
FORCES = replace(BULK, length=105, cloud=21, degree=21, orientations=20, forces=True)  # rMD17 aspirin


def faster(case: ModelCase) -> Callable[[Results], Iterator[Point]]:
    def points(results: Results) -> Iterator[Point]:
        yield ratio(results, case, "eager"), case

    return points


def less_kept(results: Results) -> Iterator[Point]:
    yield saved_bytes(BULK, "eager") / saved_bytes(BULK, "equiconv"), BULK


PROMISES = (
    Promise("five layers, training step: 2.5 times as fast as eager", 2.5, faster(BULK), True),
    Promise("kept for backward: at most a fifth", 5.0, less_kept, True),
)


def groups() -> list[list[Entry]]:
    """What is to be timed; each group takes turns."""
    return [
        [*(Entry(case, name) for name in MODELS), Entry(replace(case, antipodal=True), "equiconv")]
        for case in (FORCES, BULK)
    ]
