"""pair_invariants and fibre_invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.device import Device
from cuda_on_cpu.pair_invariants import pair_invariants as on_emulator
from cuda_on_cpu.pair_invariants import tangent as tangent_on_emulator
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from equiconv import fibre_invariants, geometry, pair_invariants
from equiconv.reference.pair_invariants import fibre_invariants as fibre_reference
from equiconv.reference.pair_invariants import pair_invariants as reference

PAIRS = 6
Given = dict[str, Tensor]


def unit(*shape: int) -> Tensor:
    v = torch.randn(shape, dtype=torch.float64)
    return v / v.norm(dim=-1, keepdim=True)


def frames(count: int, dim: int) -> Tensor:
    return geometry.random_rotations(count, dim, dtype=torch.float64)


def rel(dim: int) -> Tensor:
    return torch.randn(PAIRS, dim, dtype=torch.float64)


def two_graphs() -> Tensor:
    return torch.tensor([0, 0, 1, 1, 1, 0])


# Each space: its tensors, the options, and how many attributes.
SPACES: dict[str, tuple[Callable[[], Given], dict[str, Any], int]] = {
    "R1": (lambda: {"rel": rel(1)}, {}, 1),
    "R3": (lambda: {"rel": rel(3)}, {}, 1),
    "R2xS1": (lambda: {"rel": rel(2), "grid": unit(5, 2)}, {}, 2),
    "R3xS2": (lambda: {"rel": rel(3), "grid": unit(5, 3)}, {}, 2),
    "R3xS2-smooth": (lambda: {"rel": rel(3), "grid": unit(5, 3)}, {"smooth": True}, 2),
    "R3xS2-graphs": (lambda: {"rel": rel(3), "grid": unit(2, 5, 3), "batch": two_graphs()}, {}, 2),
    "R2xS1-full": (lambda: {"rel": rel(2), "grid": unit(4, 2)}, {"full": True, "complete": True}, 4),
    "R3xS2-full": (lambda: {"rel": rel(3), "grid": unit(4, 3)}, {"full": True, "complete": True}, 4),
    "R3xS2-full-3": (lambda: {"rel": rel(3), "grid": unit(4, 3)}, {"full": True}, 3),
    "SE3": (lambda: {"rel": rel(3), "grid": frames(4, 3)}, {}, 3),
    "SE3-graphs": (
        lambda: {"rel": rel(3), "grid": frames(8, 3).view(2, 4, 3, 3), "batch": two_graphs()},
        {},
        3,
    ),
    "SE3-full": (lambda: {"rel": rel(3), "grid": frames(3, 3)}, {"full": True}, 12),
    "SE2-full": (lambda: {"rel": rel(2), "grid": frames(3, 2)}, {"full": True}, 6),
    "R2xS1-cloud": (lambda: {"rel": rel(2), "receiver": unit(PAIRS, 2), "sender": unit(PAIRS, 2)}, {}, 3),
    "R3xS2-cloud": (lambda: {"rel": rel(3), "receiver": unit(PAIRS, 3), "sender": unit(PAIRS, 3)}, {}, 3),
    "R3xS2-cloud-4": (
        lambda: {"rel": rel(3), "receiver": unit(PAIRS, 3), "sender": unit(PAIRS, 3)},
        {"complete": True},
        4,
    ),
    "SE3-cloud": (lambda: {"rel": rel(3), "receiver": frames(PAIRS, 3), "sender": frames(PAIRS, 3)}, {}, 12),
}
ORIENTED = ("grid", "receiver", "sender")


def turned(given: Given, rotation: Tensor) -> Given:
    """All vectors, and the axes of all frames, turned."""
    result = dict(given)
    for name, tensor in given.items():
        if name == "rel" or (name in ORIENTED and not is_frame(given, name)):
            result[name] = tensor @ rotation.T
        elif name in ORIENTED:
            result[name] = rotation @ tensor
    return result


def is_frame(given: Given, name: str) -> bool:
    return given[name].dim() == (2 if name != "grid" or "batch" not in given else 3) + 1


@pytest.mark.parametrize("space", SPACES)
def test_is_invariant(space: str) -> None:
    make, options, count = SPACES[space]
    given = make()
    attributes = pair_invariants(**given, **options)
    assert attributes.shape[0] == PAIRS
    assert attributes.shape[-1] == count
    dim = given["rel"].shape[1]
    if dim == 1:
        rotation = torch.tensor([[-1.0]], dtype=torch.float64)
    else:
        (rotation,) = geometry.random_rotations(1, dim, dtype=torch.float64)
    torch.testing.assert_close(pair_invariants(**turned(given, rotation), **options), attributes)


@pytest.mark.parametrize("space", SPACES)
def test_derivatives(space: str) -> None:
    make, options, _ = SPACES[space]
    given = make()
    batch = {"batch": given.pop("batch")} if "batch" in given else {}
    extra = torch.randn(PAIRS, 1, dtype=torch.float64)
    tensors = tuple(t.requires_grad_() for t in (*given.values(), extra))

    def f(*tensors: Tensor) -> Tensor:
        named = dict(zip((*given, "extra"), tensors, strict=True))
        return pair_invariants(**named, **batch, **options, degree=2)

    assert gradcheck(f, tensors, fast_mode=True)
    assert gradgradcheck(f, tensors, fast_mode=True)


def test_formulas_of_the_paper() -> None:
    r, o, p = rel(3), unit(PAIRS, 3), unit(PAIRS, 3)
    along = (r * o).sum(1)
    across = (r - along[:, None] * o).norm(dim=1)
    expected = torch.stack((along, across, (o * p).sum(1), (p * r).sum(1)), 1)
    torch.testing.assert_close(pair_invariants(r, receiver=o, sender=p, complete=True), expected)
    torch.testing.assert_close(pair_invariants(r, receiver=o, sender=p), expected[:, :3])
    smooth = pair_invariants(r, receiver=o, sender=p, smooth=True)
    torch.testing.assert_close(smooth[:, 1], across.square())
    torch.testing.assert_close(pair_invariants(r), r.norm(dim=1, keepdim=True))
    frame, other = frames(PAIRS, 3), frames(PAIRS, 3)
    expected = torch.cat(((frame.mT @ r[..., None]).squeeze(-1), (frame.mT @ other).flatten(1)), 1)
    torch.testing.assert_close(pair_invariants(r, receiver=frame, sender=other), expected)


def test_two_dimensions_know_left_from_right() -> None:
    o = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    left, right = (torch.tensor([[0.6, s * 0.8]], dtype=torch.float64) for s in (1, -1))
    assert pair_invariants(left, receiver=o, sender=o)[0].tolist() == [0.6, 0.8, 1]
    assert pair_invariants(right, receiver=o, sender=o)[0].tolist() == [0.6, -0.8, 1]
    signed = [pair_invariants(o, receiver=o, sender=p, complete=True)[0, 3].item() for p in (left, right)]
    assert signed == [0.8, -0.8]


def test_three_attributes_of_a_cloud_are_not_complete_and_four_are() -> None:
    r = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    o = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    p, q = (torch.tensor([v], dtype=torch.float64) for v in ([0.6, 0.0, 0.8], [0.0, 0.6, 0.8]))
    assert torch.equal(pair_invariants(r, receiver=o, sender=p), pair_invariants(r, receiver=o, sender=q))
    different = [pair_invariants(r, receiver=o, sender=s, complete=True) for s in (p, q)]
    assert not torch.equal(*different)


def test_bundle_is_a_cloud_at_every_orientation() -> None:
    r, grid = rel(3), unit(4, 3)
    options = {"complete": True, "degree": 3}
    full = pair_invariants(r, grid, full=True, **options)
    for i in range(4):
        for j in range(4):
            sender, receiver = (grid[k].expand(PAIRS, -1) for k in (i, j))
            cloud = pair_invariants(r, receiver=receiver, sender=sender, **options)
            torch.testing.assert_close(full[:, i, j], cloud)
    three = pair_invariants(r, grid, full=True)
    torch.testing.assert_close(three[:, 0, :, :2], pair_invariants(r, grid))
    torch.testing.assert_close(three[0, ..., 2:], fibre_invariants(grid))
    by_graph = pair_invariants(r, grid[None].expand(2, -1, -1), batch=two_graphs())
    torch.testing.assert_close(by_graph, pair_invariants(r, grid))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once_where_there_are_no_kernels(dtype: torch.dtype) -> None:
    def of(given: dict[str, Any], kind: torch.dtype) -> dict[str, Any]:
        return {k: v.to(kind) if isinstance(v, Tensor) and k != "batch" else v for k, v in given.items()}

    r, grid = rel(3), unit(4, 3)
    cases: list[dict[str, Any]] = [
        {"rel": r, "grid": grid, "full": True},
        {"rel": r, "grid": grid[None].expand(2, -1, -1), "batch": two_graphs()},
        {"rel": r, "grid": frames(4, 3)},
        {"rel": torch.randn(PAIRS, 4)},
        {"rel": r, "extra": torch.rand(PAIRS, 9)},
    ]
    for given in cases:
        half = of({**given, "degree": 3}, dtype)
        expected = reference(**of(half, torch.float32)).to(dtype)
        contract.assert_same_bits([pair_invariants(**half)], [expected])
    half = grid.to(dtype)
    for of_grid, given in (
        (fibre_invariants(half, degree=3), fibre_reference(half.float(), degree=3)),
        (
            torch.func.vmap(lambda g: pair_invariants(r.to(dtype), g, degree=3))(half[None])[0],
            reference(r.to(dtype).float(), half.float(), degree=3),
        ),
    ):
        contract.assert_same_bits([of_grid], [given.to(dtype)])


@pytest.mark.parametrize("dim", [2, 3])
def test_fibre_invariants(dim: int) -> None:
    grid, group = unit(4, dim), frames(4, dim)
    torch.testing.assert_close(fibre_invariants(grid)[..., 0], grid @ grid.T)
    (rotation,) = frames(1, dim)
    for given, moved in ((grid, grid @ rotation.T), (group, rotation @ group)):
        for options in ({}, {"complete": True, "degree": 2}):
            torch.testing.assert_close(fibre_invariants(moved, **options), fibre_invariants(given, **options))
    relative = (group[None].mT @ group[:, None]).flatten(2)  # R of the receiver, the second axis, transposed
    torch.testing.assert_close(fibre_invariants(group), relative)


@pytest.mark.parametrize("name", ["octahedron", "cube", "icosahedron", "dodecahedron"])
def test_one_row_serves_both_directions_on_antipodal_grids(name: str) -> None:
    grid = geometry.regular_solid(name, dtype=torch.float64)
    opposite = torch.cdist(grid, -grid).argmin(1)
    r = rel(3)
    torch.testing.assert_close(pair_invariants(-r, grid)[:, opposite], pair_invariants(r, grid))


@pytest.mark.parametrize("space", ["R3", "R3xS2", "R3xS2-full", "SE3", "R2xS1", "R3xS2-cloud-4"])
def test_derivatives_at_distance_zero(space: str, dtype: torch.dtype) -> None:
    """Of every order they are those of the smooth attributes, and zero for lengths."""
    make, options, _ = SPACES[space]
    given = {name: tensor.to(dtype) for name, tensor in make().items()}
    given["rel"] = torch.zeros_like(given["rel"]).requires_grad_()
    attributes = pair_invariants(**given, **options, degree=2)
    (first,) = torch.autograd.grad(attributes.sin().sum(), given["rel"], create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), given["rel"], create_graph=True)
    (third,) = torch.autograd.grad(second.sin().sum(), given["rel"])
    assert all(d.isfinite().all() for d in (first, second, third))
    if space == "R3":
        assert not first.any()
        assert not second.any()
        assert not third.any()
    if space == "R3xS2-smooth":
        assert second.any()


def test_derivative_of_the_second_attribute_at_zero_is_zero() -> None:
    r = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    grid = unit(4, 3).requires_grad_()
    across = pair_invariants(r, grid)[..., 1]
    for gradient in torch.autograd.grad(across.sum(), (r, grid)):
        assert not gradient.any()


def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    given = {name: tensor.to(dtype) for name, tensor in SPACES["R3xS2"][0]().items()}
    assert pair_invariants(**given, degree=3).dtype == dtype


def test_no_pairs() -> None:
    grid = unit(4, 3)
    none = torch.zeros(0, 3, dtype=torch.float64)
    assert pair_invariants(none, grid, degree=3).shape == (0, 4, 9)
    assert pair_invariants(none, grid, full=True).shape == (0, 4, 4, 3)
    assert pair_invariants(none).shape == (0, 1)


def test_compiles_as_one_graph() -> None:
    given = SPACES["R3xS2"][0]()
    given["rel"].requires_grad_()
    compiled = torch.compile(pair_invariants, fullgraph=True, backend="aot_eager")
    ours, eager = compiled(**given, degree=3), pair_invariants(**given, degree=3)
    torch.testing.assert_close(ours, eager)
    gradients = [torch.autograd.grad(y.square().sum(), given["rel"])[0] for y in (ours, eager)]
    torch.testing.assert_close(*gradients)


def sample(name: str, pairs: int, dim: int, kind: str = "", *, extra: int = 0, **given: Any) -> Sample:
    """kind: so many orientations of a grid, "cloud", or nothing: distances."""
    tensors, sizes = {"rel": "En"}, {"E": pairs, "n": dim}
    if kind == "cloud":
        tensors |= {"receiver": "En", "sender": "En"}
    elif kind:
        tensors, sizes = tensors | {"grid": "On"}, sizes | {"O": int(kind)}
    if extra:
        tensors, sizes = tensors | {"extra": "EA"}, sizes | {"A": extra}
    strided = given.pop("strided", False)
    return Sample(name, tensors, sizes, {"degree": 2} | given, strided)


SAMPLES = (
    # Small: also differentiated to every order and compiled. Vectors are of any length.
    sample("bundle", 5, 3, "3"),
    sample("smooth", 4, 3, "2", extra=2, smooth=True),
    sample("cloud", 5, 3, "cloud", complete=True, degree=3),
    sample("plane-cloud", 4, 2, "cloud", extra=1, complete=True),
    sample("plane", 6, 2, "4", degree=3),
    sample("distance", 7, 3, extra=1, degree=3),
    sample("line", 3, 1, degree=1),
    sample("incomplete", 4, 3, "cloud", degree=1),
    sample("strided", 5, 3, "3", extra=1, strided=True),
    sample("strided-cloud", 5, 2, "cloud", strided=True),
    sample("no-pairs", 0, 3, "3"),
    sample("no-orientations", 3, 3, "0"),
    sample("no-pairs-cloud", 0, 3, "cloud", extra=1),
    # Larger: sizes that fill vectors and rows of them, and that do not; several threads; many features.
    sample("vectors", 64, 3, "16", degree=3),
    sample("odd", 77, 3, "21", extra=1, degree=3),
    sample("plane-large", 500, 2, "20", degree=3),
    sample("threads", 1500, 3, "12", degree=1, smooth=True),
    sample("many-orientations", 3, 3, "150", extra=1),
    sample("cloud-large", 2000, 3, "cloud", extra=2, complete=True),
    sample("many-features", 40, 3, "3", extra=2, degree=5),
    sample("distances", 1000, 2, degree=1),
    sample("strided-large", 90, 3, "5", extra=1, degree=3, strided=True),
)

CONTRACT_REFUSALS = (
    Refusal(
        "pair_invariants: rel must be (E, n), n at least 1, but has shape (3,)", {"rel": lambda rel: rel[0]}
    ),
    Refusal(
        "pair_invariants: rel must be float32, float64, bfloat16 or float16, but is int64",
        {"rel": lambda rel: rel.long()},
    ),
    Refusal(
        "pair_invariants: grid must be (O, 3) or (O, 3, 3), but has shape (3, 2)",
        {"grid": lambda grid: grid[:, 1:]},
    ),
    Refusal(
        "pair_invariants: grid must have the dtype of rel, float32, but has float64",
        {"grid": lambda grid: grid.double()},
    ),
    Refusal(
        "pair_invariants: grid must be on the device of rel, {device}, but is on meta",
        {"grid": lambda grid: grid.to("meta")},
    ),
    Refusal("pair_invariants: degree must be at least 1, but is 0", options={"degree": 0}),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    dim = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["", "cloud", "1", "4", "13"])) if dim > 1 else ""
    return sample(
        "random",
        draw(st.integers(1, 70)),
        dim,
        kind,
        extra=draw(st.integers(0, 2)),
        degree=draw(st.integers(1, 3)),
        complete=draw(st.booleans()),
        smooth=draw(st.booleans()),
        strided=draw(st.booleans()),
    )


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    names = ("rel", "grid", "receiver", "sender", "extra")
    given = [tensors.get(name) for name in names]
    rest = [options.get(name, default) for name, default in (("complete", False), ("smooth", False))]
    rest.append(options["degree"])
    grad_out = torch.randn_like(pair_invariants(**tensors, **options)).requires_grad_()
    changes = [None if t is None else torch.randn_like(t) for i, t in enumerate(given) if i != 1]
    op = torch.ops.equiconv
    yield op.pair_invariants.default, (*given, *rest)
    yield op.pair_invariants_backward.default, (grad_out, *given, *rest, True, False, True, True, True)
    everything = (True,) * 5
    yield op.pair_invariants_tangent.default, (grad_out, *given, *changes, *rest, *everything)


class TestContract(contract.Contract):
    op = Op(
        function=pair_invariants,
        reference=reference,
        samples=SAMPLES,
        refusals=CONTRACT_REFUSALS,
        random=random_samples(),
        groups=(),
        grown=lambda sizes: {axis: size + 3 for axis, size in sizes.items() if axis in "EO"},
        weights=("rel", "grid", "receiver", "sender", "extra"),
        exact=reference,
        of_squares=lambda at, **squares: 0 * reference(**squares),  # the largest entry is measure enough
        nonlinear=True,
        dispatched=dispatched,
        on_emulator=on_emulator,
    )

    def test_cuda_kernels_of_second_derivatives(self, sample: Sample, emulator: Device) -> None:
        """Against those of the CPU, in float64."""
        self.check_second_derivatives(sample, emulator)

    def test_cuda_kernels_of_second_derivatives_have_no_race(
        self, small: Sample, race_detector: Device
    ) -> None:
        race_detector.schedule("random:1")
        self.check_second_derivatives(small, race_detector)

    def check_second_derivatives(self, sample: Sample, emulator: Device) -> None:
        tensors = contract.detached(sample.make(torch.float64, "cpu"))
        changes = contract.detached(sample.make(torch.float64, "cpu", seed=1))
        changes.pop("grid", None)
        grad_out = contract.random_like(reference(**tensors, **sample.options))
        _, (_, *args), _ = (a for _, a in dispatched(tensors, sample.options))
        given, rest = args[:5], args[5:8]
        changed = [changes.get(name) for name in ("rel", "receiver", "sender", "extra")]
        op = torch.ops.equiconv.pair_invariants_tangent
        expected = op(grad_out, *given, *changed, *rest, *(True,) * 5)
        expected = [t for t, there in zip(expected, (grad_out, *changed), strict=True) if there is not None]
        emulator.report()
        found = tangent_on_emulator(emulator, tensors, sample.options, grad_out, changes)
        assert emulator.report() == ""
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    def test_autocast(self, tiny: Sample, device: str) -> None:
        """It leaves positions as they are."""
        tensors = tiny.make(torch.float32, device)
        expected = contract.value_and_gradients(self.op.function, tiny, tensors)
        with torch.autocast(device, torch.bfloat16):
            ours = contract.value_and_gradients(self.op.function, tiny, tensors)
        contract.assert_same_bits(ours, expected)

    def test_activation_checkpointing(self, tiny: Sample, device: str) -> None:
        if "grid" in tiny.tensors:
            pytest.skip(
                "a grid's gradient is made by torch.func, which PyTorch does not allow in a checkpoint"
            )
        super().test_activation_checkpointing(tiny, device)


GOOD = {"rel": torch.zeros(6, 3), "grid": torch.zeros(4, 3)}
CLOUD = {"rel": torch.zeros(6, 3), "receiver": torch.zeros(6, 3), "sender": torch.zeros(6, 3)}
BATCH = torch.zeros(6, dtype=torch.int64)
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({**GOOD, "degree": 0}, "degree must be at least 1, but is 0"),
    (
        {"rel": torch.zeros(6, 3, dtype=torch.int64)},
        "rel must be float32, float64, bfloat16 or float16, but is int64",
    ),
    ({"rel": torch.zeros(6)}, "rel must be (E, n), n at least 1, but has shape (6,)"),
    ({"rel": torch.zeros(6, 0)}, "rel must be (E, n), n at least 1, but has shape (6, 0)"),
    (
        {**GOOD, "grid": torch.zeros(4, 3).double()},
        "grid must have the dtype of rel, float32, but has float64",
    ),
    (
        {**GOOD, "grid": torch.zeros(4, 3, device="meta")},
        "grid must be on the device of rel, cpu, but is on meta",
    ),
    (
        {"rel": torch.zeros(6, 4), "grid": torch.zeros(4, 4)},
        "rel must be (E, 2) or (E, 3) beside orientations, but has shape (6, 4)",
    ),
    ({**GOOD, "grid": torch.zeros(4, 2)}, "grid must be (O, 3) or (O, 3, 3), but has shape (4, 2)"),
    (
        {**GOOD, "batch": BATCH},
        "grid must be (G, O, 3) or (G, O, 3, 3), but has shape (4, 3)",
    ),
    (
        {"rel": torch.zeros(6, 3), "receiver": torch.zeros(6, 3)},
        "receiver and sender must be given together, but sender is absent",
    ),
    (
        {**CLOUD, "grid": torch.zeros(4, 3)},
        "grid must be absent where receiver and sender are given, but is there",
    ),
    ({**CLOUD, "full": True}, "full must be False where there is no grid, but is True"),
    ({**CLOUD, "batch": BATCH}, "batch must be absent where there is no grid, but is there"),
    (
        {**CLOUD, "sender": torch.zeros(5, 3)},
        "sender must have shape (6, 3) or (6, 3, 3), but has (5, 3)",
    ),
    (
        {**CLOUD, "sender": torch.zeros(6, 3, 3)},
        "sender must have the shape of receiver, (6, 3), but has (6, 3, 3)",
    ),
    (
        {**GOOD, "grid": torch.zeros(2, 4, 3), "batch": torch.zeros(6)},
        "batch must be int64, but is float32",
    ),
    (
        {**GOOD, "grid": torch.zeros(2, 4, 3), "batch": BATCH[:5]},
        "batch must have shape (6,), but has (5,)",
    ),
    ({**GOOD, "extra": torch.zeros(5, 1)}, "extra must have shape (6, A), but has (5, 1)"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSALS, ids=[sentence for _, sentence in REFUSALS])
def test_refuses(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^pair_invariants: ") as error:
        pair_invariants(**given)
    assert str(error.value) == f"pair_invariants: {sentence}"


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 3), (4, 3, 2), (4,), (4, 3, 3, 3)])
def test_fibre_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^fibre_invariants: ") as error:
        fibre_invariants(torch.zeros(shape))
    assert str(error.value) == (
        f"fibre_invariants: grid must be (O, n) or (O, n, n) with n = 2 or 3, but has shape {shape}"
    )


@pytest.mark.parametrize("kind", ["int64", "complex64"])
def test_fibre_refuses_dtypes(kind: str) -> None:
    sentence = f"^fibre_invariants: grid must be float32, float64, bfloat16 or float16, but is {kind}$"
    with pytest.raises(ValueError, match=sentence):
        fibre_invariants(torch.zeros(4, 3, dtype=getattr(torch, kind)))
