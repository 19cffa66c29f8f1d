"""Layers and models: what they compute, how it turns with the input, what they load and refuse."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equiconv import Graph, geometry
from equiconv.nn import ConvNext, FiberBundleConv, PointCloudConv, Ponita
from equiconv.reference.ponita import Ponita as Published

SIZES = (5, 4, 1)  # points of each graph


@pytest.fixture(autouse=True)
def _one_thread(_reproducible: None) -> None:
    """Everything here is too small to share."""
    torch.set_num_threads(1)


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def cloud(*, scalars: int = 2, vectors: int = 1, dim: int = 3) -> dict[str, Any]:
    """Three graphs, their points all connected, self-loops included."""
    points = sum(SIZES)
    return {
        "pos": double(points, dim),
        "graph": Graph.complete(SIZES),
        "x": double(points, scalars),
        "vec": double(points, vectors, dim),
        "batch": torch.repeat_interleave(torch.tensor(SIZES)),
        "num_graphs": len(SIZES),
    }


def ponita(*, task: str = "graph", **options: Any) -> Ponita:
    """Untrained, but no parameter is zero, so that none is without effect."""
    settings = {"num_ori": 12, "basis_dim": 9, **options}
    model = Ponita(3, 8, 2, 3, 2, task_level=task, **settings).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def turned(given: dict[str, Any], rotation: Tensor) -> dict[str, Any]:
    return {**given, "pos": given["pos"] @ rotation.T, "vec": given["vec"] @ rotation.T}


def close(ours: Tensor, expected: Tensor, *, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance * expected.abs().max().item())


# ---- symmetry ----


@pytest.mark.parametrize("task", ["graph", "node"])
@pytest.mark.parametrize(
    "solid", ["tetrahedron", "octahedron", "cube", "icosahedron", pytest.param("dodecahedron")]
)
def test_solid_grids_have_their_rotations_as_exact_symmetries(solid: str, task: str) -> None:
    grid = geometry.regular_solid(solid, dtype=torch.float64)
    model, given = ponita(task=task, num_ori=len(grid), grid=grid, radius=3.0), cloud()
    scalars, vectors = model(**given)
    for rotation in geometry.rotation_group(solid, dtype=torch.float64)[1::5]:
        moved_scalars, moved_vectors = model(**turned(given, rotation))
        close(moved_scalars, scalars)
        close(moved_vectors, vectors @ rotation.T)


def test_even_circles_have_their_steps_as_exact_symmetries() -> None:
    model, given = ponita(dim=2, num_ori=6, complete=True), cloud(dim=2)
    model.ori_grid = geometry.circle(6, dtype=torch.float64)
    scalars, vectors = model(**given)
    cosine, sine = geometry.circle(6, dtype=torch.float64)[1].tolist()
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    moved_scalars, moved_vectors = model(**turned(given, rotation))
    close(moved_scalars, scalars)
    close(moved_vectors, vectors @ rotation.T)
    mirror = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert (model(**turned(given, mirror))[0] - scalars).abs().max() > 1e-3  # left is not right


@pytest.mark.parametrize("grid", ["fibonacci", "repulsion"])
def test_a_grid_that_turns_along_makes_every_rotation_exact(grid: str) -> None:
    """Each graph by a rotation of its own."""
    make = geometry.fibonacci_sphere if grid == "fibonacci" else geometry.repulsion_sphere
    model, given = ponita(num_ori=7, grid=make(7, dtype=torch.float64)), cloud()
    scalars, vectors = model(**given)
    rotations = geometry.random_rotations(3, dtype=torch.float64)
    each = rotations[given["batch"]]
    moved = {
        **given,
        "pos": (each @ given["pos"][..., None]).squeeze(-1),
        "vec": given["vec"] @ each.mT,
    }
    moved_scalars, moved_vectors = model(**moved, rotations=rotations)
    close(moved_scalars, scalars)
    close(moved_vectors, vectors @ rotations.mT)
    left_behind, _ = model(**moved)
    assert (left_behind - scalars).abs().max() > 1e-4 * scalars.abs().max()


@pytest.mark.parametrize("options", [{}, {"complete": True}, {"radius": 4.0, "smooth": True}])
@pytest.mark.parametrize("dim", [2, 3])
def test_edge_clouds_have_every_rotation_as_an_exact_symmetry(dim: int, options: dict[str, Any]) -> None:
    model, given = ponita(num_ori=0, lift_graph=True, dim=dim, **options), cloud(dim=dim)
    scalars, vectors = model(**given)
    assert vectors.shape == (3, 2, dim)
    (rotation,) = geometry.random_rotations(1, dim, dtype=torch.float64)
    moved_scalars, moved_vectors = model(**turned(given, rotation))
    close(moved_scalars, scalars)
    close(moved_vectors, vectors @ rotation.T)
    assert not scalars[2].any()  # the graph of one point, which no pair lifts
    made = geometry.edge_cloud(given["graph"])
    for ours, expected in zip(model(**{**given, "graph": made}), (scalars, vectors), strict=True):
        assert torch.equal(ours, expected)


def test_distances_have_every_isometry_as_an_exact_symmetry() -> None:
    model = Ponita(3, 8, 2, 2, num_ori=0, dim=3).double().eval()
    given = cloud(scalars=3)
    del given["vec"]
    scalars, vectors = model(**given)
    assert vectors is None
    (rotation,) = geometry.random_rotations(1, dtype=torch.float64)
    close(model(**{**given, "pos": -given["pos"] @ rotation.T})[0], scalars)


MODELS = {
    "bundle": {},
    "bundle-2d": {"dim": 2},
    "cloud": {"num_ori": 0, "lift_graph": True},
}


@pytest.mark.parametrize("model", MODELS)
def test_translations_and_permutations_are_exact_symmetries(model: str) -> None:
    options = MODELS[model]
    network, given = ponita(task="node", **options), cloud(dim=options.get("dim", 3))
    scalars, vectors = network(**given)
    moved = {**given, "pos": given["pos"] + torch.tensor([8.0, -2.0, 0.5][: given["pos"].shape[1]])}
    for ours, expected in zip(network(**moved), (scalars, vectors), strict=True):
        close(ours, expected)

    order = torch.randperm(sum(SIZES))
    place = order.argsort()
    graph = given["graph"]
    pairs = torch.randperm(graph.num_pairs)
    shuffled = {name: given[name][order] for name in ("pos", "x", "vec", "batch")} | {
        "graph": Graph.from_pairs(place[graph.senders[pairs]], place[graph.receivers[pairs]], len(order)),
        "num_graphs": 3,
    }
    for ours, expected in zip(network(**shuffled), (scalars, vectors), strict=True):
        close(ours, expected[order])


def test_graphs_of_a_batch_do_not_see_each_other() -> None:
    model, given = ponita(), cloud()
    scalars, vectors = model(**given)
    start = 0
    for i, size in enumerate(SIZES):
        part = slice(start, start + size)
        start += size
        alone = model(given["pos"][part], Graph.complete([size]), x=given["x"][part], vec=given["vec"][part])
        close(alone[0][0], scalars[i])
        close(alone[1][0], vectors[i])


def test_graphs_without_points_and_points_without_pairs() -> None:
    model, given = ponita(), cloud()
    scalars, _ = model(**{**given, "num_graphs": 5})
    assert scalars.shape == (5, 2)
    assert not scalars[3:].any()
    nobody = torch.zeros(0, dtype=torch.int64)
    lonely = {**given, "graph": Graph.from_pairs(nobody, nobody, sum(SIZES))}
    for options in MODELS.values():
        if options.get("dim", 3) == 3:
            outputs = ponita(task="node", **options)(**lonely)
            assert all(out.isfinite().all() and len(out) == sum(SIZES) for out in outputs)


# ---- values and derivatives ----


@pytest.mark.parametrize("options", [{}, {"radius": 2.5}, {"layer_scale": 0.3, "smooth": True}])
@pytest.mark.parametrize("task", ["graph", "node"])
def test_is_the_published_model(task: str, options: dict[str, Any]) -> None:
    """Outputs, forces and gradients of a training step on forces, with the published model's parameters."""
    ours = ponita(task=task, **options)
    theirs = Published(3, 8, 2, 3, 2, num_ori=12, basis_dim=9, task_level=task, **options).double().eval()
    theirs.load_state_dict(ours.state_dict())
    given = cloud()
    gradients, names = [], [name for name, _ in ours.named_parameters()]
    for model in (ours, theirs):
        pos = given["pos"].clone().requires_grad_()
        scalars, vectors = model(**{**given, "pos": pos})
        (force,) = torch.autograd.grad(scalars.sum(), pos, create_graph=True)
        loss = vectors.square().sum() + force.square().sum() + scalars.square().sum()
        parameters = dict(model.named_parameters())
        slopes = torch.autograd.grad(loss, [parameters[name] for name in names])
        gradients.append([scalars, vectors, force, *slopes])
    for a, b in zip(*gradients, strict=True):
        assert a.isfinite().all()
        close(a, b, tolerance=1e-11)


def energy(model: Ponita, given: dict[str, Any]) -> Any:
    def total(pos: Tensor) -> Tensor:
        scalars, _ = model(**{**given, "pos": pos})
        return scalars[:, 0].sum()

    return total


@pytest.mark.parametrize("model", MODELS)
def test_force_is_minus_the_slope_of_the_energy(model: str) -> None:
    options = MODELS[model]
    given = cloud(dim=options.get("dim", 3))
    total, pos = energy(ponita(radius=3.0, **options), given), given["pos"]
    slope = torch.func.grad(total)(pos)
    step = 1e-5
    for i in range(0, pos.numel(), 4):
        e = torch.zeros(pos.numel(), dtype=torch.float64)
        e[i] = step
        e = e.view_as(pos)
        difference = (total(pos + e) - total(pos - e)) / (2 * step)
        assert difference.item() == pytest.approx(slope.flatten()[i].item(), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("model", MODELS)
def test_hessian_is_symmetric(model: str) -> None:
    options = MODELS[model]
    given = cloud(dim=options.get("dim", 3))
    pos = given["pos"].clone().requires_grad_()
    hessian = torch.autograd.functional.hessian(energy(ponita(**{"num_ori": 4, **options}), given), pos)
    flat = hessian.reshape(pos.numel(), pos.numel())
    assert flat.isfinite().all()
    close(flat, flat.T, tolerance=1e-11)
    within = given["batch"][:, None] == given["batch"]
    assert not hessian.permute(0, 2, 1, 3)[~within].any()  # graphs do not see each other


def test_short_dynamics_keeps_its_energy() -> None:
    """Velocity Verlet on the smooth energy: the error falls with the square of the time step."""
    model, given = ponita(smooth=True, num_ori=4), cloud()
    total = energy(model, given)
    force = torch.func.grad(lambda pos: -0.1 * total(pos))

    def drift(steps: int, time: float = 0.4) -> float:
        pos, velocity, step = given["pos"].clone(), torch.zeros_like(given["pos"]), time / steps
        at = force(pos)
        start = 0.1 * total(pos)
        worst = 0.0
        for _ in range(steps):
            velocity = velocity + step / 2 * at
            pos = pos + step * velocity
            at = force(pos)
            velocity = velocity + step / 2 * at
            worst = max(worst, abs(0.1 * total(pos) + velocity.square().sum() / 2 - start).item())
        return worst

    coarse, fine = drift(10), drift(40)
    moved = force(given["pos"]).abs().max().item()
    assert moved > 1e-3
    assert fine < coarse / 8
    assert fine < 1e-5


# ---- layers ----


def test_layers_by_hand() -> None:
    graph = Graph.from_pairs(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 2]), 3)
    pairs, functions, orientations = 4, 5, 3
    x, basis = double(3, orientations, 2), double(pairs, orientations, functions)
    fibre = double(orientations, orientations, functions)
    full = double(pairs, orientations, orientations, functions)

    def at(layer: nn.Linear, basis: Tensor) -> Tensor:
        return (basis @ layer.weight.T).unflatten(-1, (4, 2))

    def summed(messages: Tensor) -> Tensor:
        return messages.new_zeros(3, *messages.shape[1:]).index_add(0, graph.receivers, messages)

    conv = FiberBundleConv(2, 4, functions).double().eval()
    y = summed(basis @ conv.kernel.weight.T * x[graph.senders])
    expected = torch.einsum("noc,opdc->npd", y, at(conv.fiber_kernel, fibre)) / orientations
    close(conv(x, basis, fibre, graph), expected)
    conv = FiberBundleConv(2, 4, functions, separable=False).double().eval()
    messages = torch.einsum("eoc,eopdc->epd", x[graph.senders], at(conv.kernel, full))
    close(conv(x, full, None, graph), summed(messages))
    conv = FiberBundleConv(2, 2, functions, separable=False, groups=2, bias=False).double().eval()
    messages = torch.einsum("eoc,eopc->epc", x[graph.senders], full @ conv.kernel.weight.T)
    close(conv(x, full, None, graph), summed(messages))
    cloud_conv = PointCloudConv(2, 4, functions).double().eval()
    messages = torch.einsum("ec,edc->ed", x[graph.senders, 0], at(cloud_conv.kernel, basis[:, 0]))
    close(cloud_conv(x[:, 0], basis[:, 0], graph), summed(messages))


@pytest.mark.parametrize("kind", ["bundle", "full", "cloud"])
def test_calibration(kind: str) -> None:
    """Once; the output keeps the input's size; the first forward and its backward are of the old weights."""
    graph = Graph.complete([30])
    fibre: Any = double(4, 4, 5)
    x, basis = double(30, 4, 6), double(900, 4, 5)
    if kind == "cloud":
        conv: Any = PointCloudConv(6, 6, 5, groups=6).double()
        given: Any = (basis[:, 0], graph)
        x = x[:, 0]
    elif kind == "full":
        conv = FiberBundleConv(6, 6, 5, groups=6, separable=False).double()
        given = (double(900, 4, 4, 5), None, graph)
    else:
        conv = FiberBundleConv(6, 6, 5, groups=6).double()
        given = (basis, fibre, graph)
    evaluated = copy.deepcopy(conv).eval()
    gradients = []
    for module in (conv, evaluated):
        leaf = x.clone().requires_grad_()
        out = module(leaf, *given)
        gradients.append([out, *torch.autograd.grad(out.square().sum(), [leaf, *module.parameters()])])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    assert conv.callibrated
    assert not evaluated.callibrated
    calibrated = [parameter.clone() for parameter in conv.parameters()]
    assert conv(x, *given).std().item() == pytest.approx(x.std().item(), rel=1e-6)
    assert all(map(torch.equal, calibrated, conv.parameters()))  # only once
    again = copy.deepcopy(evaluated).train()
    again.load_state_dict(conv.state_dict())
    again(x, *given)
    assert all(map(torch.equal, calibrated, again.parameters()))  # nor after loading
    nothing = Graph.from_pairs(graph.senders[:0], graph.receivers[:0], 30)
    evaluated.train()
    evaluated(x, *(None if t is None else t[:0] if len(t) == 900 else t for t in given[:-1]), nothing)
    assert all(p.isfinite().all() for p in evaluated.parameters())


def test_a_whole_number_is_a_layer_scale() -> None:
    assert Ponita(1, 4, 1, 1, layer_scale=1).interaction_layers[0].layer_scale.dtype == torch.float32


def test_block_is_a_residual() -> None:
    block = ConvNext(4, PointCloudConv(4, 4, 5, groups=4), layer_scale=0.0)
    x = torch.randn(3, 4)
    assert torch.equal(block(x, torch.randn(9, 5), Graph.complete([3])), x)


# ---- checkpoints ----


def published_names(layers: int, *, cloud: bool) -> set[str]:
    names = {"x_embedder.weight"}
    for basis in ("basis_fn", *(() if cloud else ("fiber_basis_fn",))):
        names |= {f"{basis}.{i}.{kind}" for i in (1, 3) for kind in ("weight", "bias")}
    for i in range(layers):
        layer = f"interaction_layers.{i}"
        names |= {f"{layer}.conv.kernel.weight", f"{layer}.conv.bias", f"{layer}.conv.callibrated"}
        names |= set() if cloud else {f"{layer}.conv.fiber_kernel.weight"}
        names |= {
            f"{part}.{kind}"
            for part in (f"{layer}.linear_1", f"{layer}.linear_2", f"{layer}.norm", f"read_out_layers.{i}")
            for kind in ("weight", "bias")
        }
        names.add(f"{layer}.layer_scale")
    return names


def test_loads_published_checkpoints() -> None:
    bundle = Ponita(3, 8, 1, 2, 1, num_ori=12, basis_dim=9, layer_scale=1e-6)
    checkpoint = {name: torch.randn_like(t.float()) for name, t in bundle.state_dict().items()}
    del checkpoint["ori_grid"]
    assert set(checkpoint) == published_names(2, cloud=False)
    assert checkpoint["basis_fn.1.weight"].shape == (8, 14)
    assert checkpoint["fiber_basis_fn.1.weight"].shape == (8, 3)
    grid = bundle.ori_grid.clone()
    with pytest.warns(UserWarning, match="the checkpoint has no ori_grid"):
        bundle.load_state_dict(checkpoint)
    assert torch.equal(bundle.ori_grid, grid)
    assert "ori_grid" not in checkpoint
    loaded = bundle.state_dict()
    assert all(torch.equal(loaded[n], t.to(loaded[n].dtype)) for n, t in checkpoint.items())
    bundle.load_state_dict(bundle.state_dict())  # our own hold the grid: no warning

    lifted = Ponita(3, 8, 1, 2, 1, num_ori=-1, lift_graph=True, basis_dim=9, layer_scale=1e-6)
    assert set(lifted.state_dict()) == published_names(2, cloud=True)
    assert lifted.basis_fn[1].weight.shape == (8, 39)
    with pytest.warns(UserWarning, match="no ori_grid"), pytest.raises(RuntimeError, match="Missing key"):
        bundle.load_state_dict(lifted.state_dict())


@pytest.mark.parametrize("antipodal", [False, True])
def test_takes_data_as_torch_geometric_has_it(antipodal: bool) -> None:
    """Where it serves, as an undirected graph, if it is one."""
    model, given = ponita(grid=geometry.repulsion_sphere(12, antipodal=antipodal)), cloud()
    graph = given["graph"]
    different = graph.senders != graph.receivers
    edges = torch.stack((graph.senders, graph.receivers))[:, different]
    fields = {name: given[name] for name in ("pos", "x", "vec", "batch", "num_graphs")}
    data = types.SimpleNamespace(**fields, edge_index=torch.cat((edges, edges[:, :3]), 1))
    for ours, expected in zip(model(data), model(**given), strict=True):
        close(ours, expected)
    data.edge_index = edges[:, 1:]  # one of them goes one way only
    loops = torch.arange(len(given["pos"])).expand(2, -1)
    given["graph"] = Graph.from_pairs(*torch.cat((edges[:, 1:], loops), 1), len(given["pos"]))
    for ours, expected in zip(model(data), model(**given), strict=True):
        close(ours, expected)


# ---- refusals ----

CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"pos": torch.zeros(10, 2)}, "pos must have shape (N, 3), but has (10, 2)"),
    ({"x": double(9, 2)}, "x must have shape (10, S), but has (9, 2)"),
    ({"vec": double(10, 1, 2)}, "vec must have shape (10, V, 3), but has (10, 1, 2)"),
    ({"batch": torch.zeros(9, dtype=torch.int64)}, "batch must have shape (10,), but has (9,)"),
    ({"batch": torch.zeros(10)}, "batch must be int64, but is float32"),
    ({"num_graphs": None}, "num_graphs must be given beside batch, but is absent"),
    (
        {"graph": Graph.complete([9])},
        "graph must have the points of pos, 10, on both sides, but has 9 senders and 9 receivers",
    ),
    (
        {"graph": geometry.edge_cloud(Graph.complete([10]))},
        "graph must be a Graph where lift_graph is False, but is an EdgeCloud",
    ),
    ({"x": double(10, 4)}, "x and vec must have 3 features together, but have 5"),
    ({"x": torch.zeros(10, 2)}, "x must have the dtype of the parameters, float64, but has float32"),
    ({"shifts": double(3, 3)}, "shifts must have shape (42, 3), but has (3, 3)"),
    ({"extra": double(42, 0)}, "extra must be absent where extra_dim is 0, but is there"),
    (
        {"graph": torch.zeros(2, 42, dtype=torch.int64)},
        "graph must be a Graph, as Graph.from_edge_index makes of an edge_index, but is a Tensor",
    ),
    ({"rotations": double(2, 3, 3)}, "rotations must have shape (3, 3, 3), but has (2, 3, 3)"),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES, ids=[sentence for _, sentence in CHANGES])
def test_refuses_inputs(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^Ponita: ") as error:
        ponita()(**{**cloud(), **change})
    assert str(error.value) == f"Ponita: {sentence}"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: Ponita(1, 8, 1, 1, task_level="edge"),
            "Ponita: task_level must be graph or node, but is edge",
        ),
        (lambda: Ponita(1, 8, 1, 0), "Ponita: num_layers must be at least 1, but is 0"),
        (lambda: Ponita(1, 8, 1, 1, dim=4), "Ponita: dim must be 2 or 3, but is 4"),
        (
            lambda: Ponita(1, 8, 1, 1, 2, num_ori=0),
            "Ponita: output_dim_vec must be 0 where there are no orientations, but is 2",
        ),
        (
            lambda: Ponita(1, 8, 1, 1, num_ori=5, grid=torch.zeros(4, 3)),
            "Ponita: grid must have shape (5, 3), num_ori and dim, but has (4, 3)",
        ),
        (
            lambda: Ponita(1, 8, 1, 1, num_ori=5, grid=torch.zeros(5, 3, dtype=torch.int64)),
            "Ponita: grid must be float32, float64, bfloat16 or float16, but is int64",
        ),
        (
            lambda: FiberBundleConv(4, 4, 3)(double(2, 3, 4), double(4, 3, 3), None, Graph.complete([2])),
            "FiberBundleConv: fibre_basis must be given where separable is True, but is absent",
        ),
        (
            lambda: FiberBundleConv(4, 4, 3, groups=2),
            "FiberBundleConv: groups must be 1, or equal to in_channels and out_channels, 4 and 4, but is 2",
        ),
        (
            lambda: PointCloudConv(4, 5, 3, groups=4),
            "PointCloudConv: groups must be 1, or equal to in_channels and out_channels, 4 and 5, but is 4",
        ),
        (
            lambda: Ponita(1, 8, 1, 1)(torch.zeros(3, 3)),
            "Ponita: graph must be given, or pos be an object that has pos",
        ),
    ],
)
def test_refuses_arguments(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+: ") as error:
        call()
    assert str(error.value) == sentence
