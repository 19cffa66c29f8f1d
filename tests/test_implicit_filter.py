"""implicit_filter."""

from __future__ import annotations

from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.implicit_filter import implicit_filter as on_emulator
from torch import Tensor

from equiconv import implicit_filter
from equiconv.nn import ImplicitFilter
from equiconv.reference.implicit_filter import implicit_filter as reference

AXES = {
    "features": "LE",
    "first_weight": "HE",
    "first_bias": "H",
    "inner_weight": "MHH",
    "inner_bias": "MH",
    "output_weight": "DH",
    "rates": "D",
}


def sample(name: str, L: int, E: int, H: int, M: int, D: int, **settings: Any) -> Sample:
    return Sample(name, AXES, {"L": L, "E": E, "H": H, "M": M, "D": D}, **settings)


def of_squares(
    features: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    output_weight: Tensor,
    rates: Tensor,
    at: dict[str, Tensor],
) -> Tensor:
    layers = zip((first_weight, *inner_weight), (first_bias, *inner_bias), strict=True)
    layers_at = zip(
        (at["first_weight"], *at["inner_weight"]), (at["first_bias"], *at["inner_bias"]), strict=True
    )
    h, h_at = features, at["features"]
    for (weight, bias), (weight_at, bias_at) in zip(layers, layers_at, strict=True):
        angle = h_at @ weight_at.T + bias_at
        h = angle.sin().square() + angle.cos().square() * (h @ weight.T + bias)
        h_at = angle.sin()
    exponents = features[:, :1] * rates
    window = torch.exp(-2 * at["features"][:, :1] * at["rates"])
    return ((h @ output_weight.T) * window * (1 + exponents)).mT


class TestContract(contract.Contract):
    op = Op(
        function=implicit_filter,
        reference=reference,
        exact=reference,
        of_squares=of_squares,
        nonlinear=True,
        samples=(
            sample("small", 5, 3, 4, 1, 2),
            sample("one-of-each", 1, 1, 1, 1, 1),
            sample("two-inner", 3, 3, 2, 2, 3),
            sample("strided", 6, 3, 3, 1, 2, strided=True),
            sample("no-positions", 0, 3, 4, 1, 2),
            sample("no-channels", 4, 3, 4, 1, 0),
            sample("no-features-between", 4, 3, 0, 1, 2),
            sample("more-than-a-tile", 131, 5, 9, 1, 7),
            sample("whole-vectors", 96, 16, 32, 1, 16),
            sample("strided-large", 203, 7, 18, 2, 21, strided=True),
        ),
        refusals=(
            Refusal(
                "implicit_filter: features must be (L, E), but has shape (5,)",
                {"features": lambda t: t[:, 0]},
            ),
            Refusal(
                "implicit_filter: features must be float32, float64, bfloat16 or float16, but is int64",
                {"features": lambda t: t.long()},
            ),
            Refusal(
                "implicit_filter: features must be (L, E) with E at least 1, but has shape (5, 0)",
                {"features": lambda t: t[:, :0]},
            ),
            Refusal(
                "implicit_filter: first_weight must be (H, E), but has shape (4,)",
                {"first_weight": lambda t: t[:, 0]},
            ),
            Refusal(
                "implicit_filter: inner_weight must be (M, H, H), but has shape (4, 4)",
                {"inner_weight": lambda t: t[0]},
            ),
            Refusal(
                "implicit_filter: output_weight must be (D, H), but has shape (2,)",
                {"output_weight": lambda t: t[:, 0]},
            ),
            Refusal(
                "implicit_filter: first_weight must have shape (4, 3), but has (4, 2)",
                {"first_weight": lambda t: t[:, 1:]},
            ),
            Refusal(
                "implicit_filter: first_bias must have shape (4,), but has (3,)",
                {"first_bias": lambda t: t[1:]},
            ),
            Refusal(
                "implicit_filter: inner_weight must have shape (1, 4, 4), but has (1, 3, 4)",
                {"inner_weight": lambda t: t[:, 1:]},
            ),
            Refusal(
                "implicit_filter: inner_bias must have shape (1, 4), but has (2, 4)",
                {"inner_bias": lambda t: t.repeat(2, 1)},
            ),
            Refusal(
                "implicit_filter: output_weight must have shape (2, 4), but has (2, 5)",
                {"output_weight": lambda t: torch.cat([t, t[:, :1]], 1)},
            ),
            Refusal(
                "implicit_filter: rates must have shape (2,), but has (3,)",
                {"rates": lambda t: torch.cat([t, t[:1]])},
            ),
            Refusal(
                "implicit_filter: rates must have the dtype of features, float32, but has float64",
                {"rates": lambda t: t.double()},
            ),
            Refusal(
                "implicit_filter: first_bias must be on the device of features, {device}, but is on meta",
                {"first_bias": lambda t: t.to("meta")},
            ),
        ),
        random=st.builds(
            sample,
            st.just("random"),
            st.integers(0, 6),
            *(st.integers(1, 20), st.integers(1, 40), st.just(1), st.integers(0, 4)),
            strided=st.booleans(),
        ),
        groups=(("output_weight",),),
        # A size of 1 is a case of its own for torch.compile, and so is a number of layers for the reference,
        # which makes the gradients of features and rates.
        grown=lambda sizes: {a: size + 2 if size > 1 and a != "M" else size for a, size in sizes.items()},
        weights=tuple(AXES),
        dispatched=lambda tensors, options: (
            (torch.ops.equiconv.implicit_filter.default, tuple(tensors.values())),
            (
                torch.ops.equiconv.implicit_filter_backward.default,
                (
                    torch.randn(len(tensors["rates"]), len(tensors["features"])),
                    *tensors.values(),
                    *(False, True, True, True, True, True, False),
                ),
            ),
        ),
        threads=(1, 1),  # gradients of features and rates are PyTorch's; the others see below
        on_emulator=on_emulator,
    )

    def test_autocast(self) -> None:  # type: ignore[override]
        """Angles of many turns are no numbers for half types: autocast leaves float32 as it is."""
        tensors = self.op.samples[0].make(torch.float32, "cpu")
        with torch.autocast("cpu", torch.bfloat16):
            inside = contract.value_and_gradients(implicit_filter, self.op.samples[0], tensors)
        contract.assert_same_bits(
            inside, contract.value_and_gradients(implicit_filter, self.op.samples[0], tensors)
        )


def large(length: int = 2500, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return sample("large", length, 5, 24, 1, 19).make(dtype, "cpu")


def test_same_bits_for_any_number_of_threads() -> None:
    """Where the sums of weights are cut into runs, and tiles are shared out."""
    tensors, results, threads = large(), [], torch.get_num_threads()
    grad_out = torch.randn(19, 2500)
    for count in (1, 2, 3, 5):
        torch.set_num_threads(count)
        try:
            y = implicit_filter(**tensors)
            gradients = torch.autograd.grad(y, tuple(tensors.values()), grad_out)
            results.append([y.detach(), *gradients[1:6]])
        finally:
            torch.set_num_threads(threads)
    for result in results[1:]:
        contract.assert_same_bits(result, results[0])


def test_gradients_over_runs_are_right() -> None:
    tensors = large()
    wide = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    grad_out = torch.randn(19, 2500)
    ours = torch.autograd.grad(implicit_filter(**tensors), tuple(tensors.values()), grad_out)
    theirs = torch.autograd.grad(reference(**wide), tuple(wide.values()), grad_out.double())
    for name, a, b in zip(tensors, ours, theirs, strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=0, atol=1e-5 * b.abs().max().item(), msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("layout", ["rows", "channels last", "strided", "expanded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_of_any_strides(layout: str, dtype: torch.dtype) -> None:
    tensors = large(107, dtype)
    grad_out = torch.randn(19, 107).to(dtype)
    if layout == "expanded":
        grad_out = grad_out[:, :1].expand(19, 107)
    expected = torch.autograd.grad(implicit_filter(**tensors), tuple(tensors.values()), grad_out.contiguous())
    laid = {
        "rows": lambda: grad_out,
        "channels last": lambda: grad_out.mT.contiguous().mT,
        "strided": lambda: torch.stack([grad_out, grad_out], -1)[..., 0],
        "expanded": lambda: grad_out,
    }[layout]()
    ours = torch.autograd.grad(implicit_filter(**tensors), tuple(tensors.values()), laid)
    contract.assert_same_bits(ours[1:6], expected[1:6])


def one_layer(angles: Tensor) -> Tensor:
    """sin(angles) by the op: one feature, one sine, one channel without a window."""
    one, none = angles.new_ones(1, 1), angles.new_zeros(1)
    inner = angles.new_zeros(0, 1, 1), angles.new_zeros(0, 1)
    return implicit_filter(angles[:, None], one, none, *inner, one, none)[0]


def test_sines_of_any_angle() -> None:
    """Of many turns too, and where they are exactly as large as float32 can tell."""
    angles = torch.cat([torch.linspace(-7000, 7000, 100_001), 10 ** torch.linspace(-30, 38, 5000)])
    angles = torch.cat([angles, torch.tensor([0.0, torch.pi, torch.pi / 2, 6000.0, 6000.1, 1e38])])
    made, exact = one_layer(angles), torch.sin(angles.double())
    assert (made - exact).abs().max() < 1.5e-7
    small = angles.abs() < 0.1
    assert ((made - exact).abs() <= 2e-7 * exact.abs())[small].all()
    assert one_layer(torch.tensor([torch.inf, torch.nan])).isnan().all()


def test_nan_stays_at_its_position() -> None:
    tensors = contract.detached(large(300))
    clean = implicit_filter(**tensors)
    tensors["features"][7, 2] = torch.nan
    poisoned = implicit_filter(**tensors)
    others = torch.arange(300) != 7
    assert poisoned[:, 7].isnan().all()
    contract.assert_same_bits([poisoned[:, others]], [clean[:, others]])


def test_windows_that_overflow_or_vanish() -> None:
    t = torch.tensor([-200.0, -80, -1, 0, 1, 80, 200])
    one, none = torch.ones(1, 1), torch.zeros(1)
    inner = torch.zeros(0, 1, 1), torch.zeros(0, 1)
    half_turn = torch.full((1,), torch.pi / 2)
    made = implicit_filter(t[:, None], 0 * one, half_turn, *inner, one, none + 1)[0]
    torch.testing.assert_close(made, torch.exp(-t), rtol=3e-7, atol=1e-38)


def test_no_inner_layers() -> None:
    tensors = sample("", 9, 3, 5, 0, 2).make(torch.float64, "cpu")
    options = {"allow_unused": True, "materialize_grads": True}
    y, z = implicit_filter(**tensors), reference(**tensors)
    torch.testing.assert_close(y, z)
    given = tuple(tensors.values())
    for a, b in zip(
        torch.autograd.grad(y, given, torch.ones_like(y), **options),
        torch.autograd.grad(z, given, torch.ones_like(z), **options),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("num_inner", [0, 1, 3])
def test_module_against_its_layers(two_sided: bool, num_inner: int) -> None:
    """sin(ω (W h + b)), layer by layer, as it is written in the module's docstring."""
    module = ImplicitFilter(3, 40, emb_dim=5, order=8, num_inner=num_inner, two_sided=two_sided).double()
    torch.nn.init.uniform_(module.omega, 5, 15)
    h = module.features[:17]
    for layer in (module.input, *module.inner):
        h = torch.sin(module.omega * layer(h))
    window = torch.exp(-module.features[:17, :1] * module.rates)
    if two_sided:
        ahead, behind = (part * window for part in module.output(h).chunk(2, dim=-1))
        expected = torch.cat([behind.flip(0), ahead])[1:].mT
    else:
        expected = (module.output(h) * window).mT
    made = module(17)
    torch.testing.assert_close(made, expected)
    parameters = tuple(module.parameters())
    for a, b in zip(
        torch.autograd.grad(made.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_backward_keeps_nothing_but_its_arguments() -> None:
    tensors = large()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        implicit_filter(**tensors)
    assert {t.data_ptr() for t in kept} <= {t.data_ptr() for t in tensors.values()}
