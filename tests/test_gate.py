from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.gate import gate as on_emulator
from torch import Tensor

from equiconv import gate
from equiconv.nn import GatedLinearUnit
from equiconv.ops.gate import NUMBERS
from equiconv.reference.gate import ACTIVATIONS
from equiconv.reference.gate import gate as reference

BOTH = ("bias", "gate_bias")


def sample(
    name: str,
    activation: str,
    shape: tuple[int, ...],
    *,
    dim: int = -1,
    packed: bool = False,
    biases: Iterable[str] = BOTH,
    **kind: Any,
) -> Sample:
    """x of `shape`; its channels are the letter D, packed with the gates' P."""
    letters = ["ABCEFGH"[i] for i in range(len(shape))]
    sizes = dict(zip(letters, shape, strict=True))
    del sizes[letters[dim]]
    letters[dim] = "P" if packed else "D"
    sizes |= {"D": shape[dim], **({"P": 2 * shape[dim]} if packed else {})}
    axes = "".join(letters)
    tensors = {"x": axes} if packed else {"x": axes, "gate": axes}
    tensors |= dict.fromkeys(biases, "D")
    return Sample(name, tensors, sizes, {"activation": activation, "dim": dim}, **kind)


SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("sigmoid", "sigmoid", (2, 3, 4)),
    sample("packed-silu", "silu", (3, 5), packed=True),
    sample("gelu-channels-first", "gelu", (2, 3, 4), dim=1, strided=True),
    sample("tanh-without-biases", "tanh", (7,), biases=()),
    sample("relu", "relu", (3, 4), biases=("bias",)),
    sample("bilinear", "identity", (2, 2, 3), dim=-2, packed=True, biases=("gate_bias",)),
    sample("packed-strided", "tanh", (2, 3, 2), packed=True, strided=True),
    sample("packed-first-axis", "gelu", (3, 4), dim=0, packed=True),
    sample("one", "silu", (1,)),
    sample("no-rows", "sigmoid", (0, 4)),
    sample("no-channels", "gelu", (3, 0), packed=True),
    # Larger: values, bits, threads. Sizes that fill vectors and blocks and that do not, few rows and many.
    *(sample(f"{name}-rows", name, (300, 130)) for name in ACTIVATIONS),
    *(sample(f"{name}-positions", name, (5, 33, 1025), dim=1, packed=True) for name in ACTIVATIONS),
    sample("wide", "gelu", (3, 5000), packed=True),
    sample("long", "silu", (2, 3, 40001), dim=1),
    sample("one-channel", "sigmoid", (20000, 1)),
    sample("short-rows", "tanh", (3000, 5), packed=True),
    sample("short-positions", "silu", (50, 70, 3), dim=-2),
    sample("without-biases", "gelu", (90, 1001), packed=True, biases=()),
    sample("wide-rows", "gelu", (130, 320)),
    sample("wide-positions", "tanh", (3, 3, 2080), dim=1),
    sample("uneven-positions", "tanh", (3, 3, 700), dim=1, biases=("bias",), strided=True),
    sample("bare", "sigmoid", (5, 96), biases=()),
    *(sample(f"{name}-small", name, (6, 11)) for name in ACTIVATIONS),
    sample("six-dimensions", "sigmoid", (3, 2, 4, 6, 5, 2), dim=2, strided=True),
    sample("strided-large", "silu", (40, 60, 35), strided=True),
    sample("strided-positions", "gelu", (40, 60, 35), dim=1, packed=True, strided=True),
    sample("float32-biases", "silu", (70, 96), packed=True, float32=frozenset(BOTH)),
)

REFUSALS = (
    Refusal(
        "gate: activation must be identity, sigmoid, silu, gelu, relu or tanh, but is swish",
        options={"activation": "swish"},
    ),
    Refusal("gate: x must be float32, float64, bfloat16 or float16, but is int64", {"x": lambda x: x.long()}),
    Refusal("gate: x must have 1 to 16 dimensions, but has 0", {"x": lambda x: x[0, 0, 0]}),
    Refusal("gate: x must have 1 to 16 dimensions, but has 17", {"x": lambda x: x.view(2, *[1] * 14, 3, 4)}),
    Refusal("gate: dim must be -3 to 2 where x has shape (2, 3, 4), but is 3", options={"dim": 3}),
    Refusal("gate: dim must be -3 to 2 where x has shape (2, 3, 4), but is -4", options={"dim": -4}),
    Refusal("gate: gate must have the shape of x, (2, 3, 4), but has (2, 3)", {"gate": lambda g: g[..., 0]}),
    Refusal("gate: gate must have the dtype of x, float32, but has float16", {"gate": lambda g: g.half()}),
    Refusal(
        "gate: gate must be on the device of x, {device}, but is on meta", {"gate": lambda g: g.to("meta")}
    ),
    *(
        refusal
        for name in BOTH
        for refusal in (
            Refusal(
                f"gate: {name} must have shape (4,), one for each channel, but has (3,)",
                {name: lambda b: b[1:]},
            ),
            Refusal(
                f"gate: {name} must have shape (4,), one for each channel, but has (1, 4)",
                {name: lambda b: b[None]},
            ),
            Refusal(
                f"gate: {name} must have the dtype of x, float32, but has bfloat16",
                {name: lambda b: b.bfloat16()},
            ),
            Refusal(
                f"gate: {name} must be on the device of x, {{device}}, but is on meta",
                {name: lambda b: b.to("meta")},
            ),
        )
    ),
    Refusal(
        "gate: bias must have the dtype of x, float16, or float32, but has bfloat16",
        {"x": lambda x: x.half(), "gate": lambda g: g.half(), "bias": lambda b: b.bfloat16()},
    ),
)


PACKED_REFUSALS = (
    Refusal(
        "gate: x must have an even size along dim where there is no gate, but has shape (3, 9)",
        {"x": lambda x: x[:, 1:]},
    ),
    Refusal("gate: bias must have shape (4,), one for each channel, but has (5,)", {"x": lambda x: x[:, 2:]}),
)


@st.composite
def random_samples(draw: st.DrawFn, packed: bool) -> Sample:
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    return sample(
        "random",
        draw(st.sampled_from([*ACTIVATIONS])),
        shape,
        dim=draw(st.integers(-len(shape), -1)),
        packed=packed,
        biases=draw(st.sets(st.sampled_from(BOTH))),
        strided=draw(st.booleans()),
        float32=frozenset(BOTH if draw(st.booleans()) else []),
    )


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    arguments = tuple(tensors.get(name) for name in ("x", "gate", *BOTH))
    for order in (0, 1):
        args = (*arguments, NUMBERS[options["activation"]], options["dim"], order)
        yield torch.ops.equiconv.gate.default, args
        y = torch.ops.equiconv.gate(*args)
        grad_out = torch.randn_like(y, requires_grad=True)
        yield torch.ops.equiconv.gate_backward.default, (grad_out, *args, True, True, True, True)
        yield torch.ops.equiconv.gate_backward.default, (grad_out, *args, False, True, True, False)


def of_squares(
    x: Tensor,
    gate: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    gate_bias: Tensor | None = None,
    activation: str,
    dim: int,
    at: Mapping[str, Tensor],
) -> Tensor:
    """(x + bias)² (act² + act'² (gate² + gate_bias²)), act and act' at the arguments themselves."""

    def halves(x: Tensor, gate: Tensor | None) -> tuple[Tensor, ...]:
        return x.chunk(2, dim) if gate is None else (x, gate)

    def shifted(tensor: Tensor, bias: Tensor | None) -> Tensor:
        return reference(tensor, torch.ones_like(tensor), bias=bias, activation="identity", dim=dim)

    u = shifted(halves(at["x"], at.get("gate"))[1], at.get("gate_bias")).requires_grad_()
    value = ACTIVATIONS[activation](u)
    (slope,) = torch.autograd.grad(value.sum(), u)
    values, control = halves(x, gate)
    of_activation = value.detach().square() + slope.square() * shifted(control, gate_bias)
    return shifted(values, bias) * of_activation


def op(packed: bool, refusals: tuple[Refusal, ...], groups: tuple[tuple[str, ...], ...]) -> Op:
    return Op(
        function=gate,
        reference=reference,
        samples=tuple(sample for sample in SAMPLES if ("gate" not in sample.tensors) == packed),
        refusals=refusals,
        random=random_samples(packed),
        groups=groups,
        grown=lambda sizes: {name: size + {"D": 2, "P": 4}.get(name, 3) for name, size in sizes.items()},
        weights=BOTH,
        exact=reference,
        of_squares=of_squares,
        nonlinear=True,
        dispatched=dispatched,
        on_emulator=on_emulator,
    )


class TestContract(contract.Contract):
    """Values and gates in two tensors."""

    op = op(False, REFUSALS, (("x", "bias"),))


class TestPacked(contract.Contract):
    """Values and gates in one, which is linear in neither."""

    op = op(True, PACKED_REFUSALS, ())


# ---- what is special about an activation --------------------------------------------------------------

EXTREMES = (
    0.0,
    -0.0,
    1e-30,
    0.5,
    -0.5,
    3.0,
    -3.0,
    20.0,
    -20.0,
    88.0,
    -88.0,
    104.0,
    -104.0,
    1e4,
    -1e4,
    3e38,
    -3e38,
)
SMALL = 2e-36  # where e^-|u|, or the tail of the normal distribution, is subnormal, it is taken for zero
INFINITE = (float("inf"), float("-inf"), float("nan"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extremes(activation: str, dtype: torch.dtype, device: str) -> None:
    """Of gates and of values, infinities and NaN among them."""
    gates = torch.tensor([*EXTREMES, *INFINITE], dtype=dtype, device=device)
    ones = torch.ones_like(gates)
    tolerance = 1e-2 if dtype.itemsize == 2 else 1e-5
    ours = gate(ones, gates, activation=activation)
    exact = exact_activation(activation, gates.double()).to(dtype)
    torch.testing.assert_close(ours, exact, rtol=tolerance, atol=SMALL, equal_nan=True)
    ours, theirs = (f(gates, 0.5 * ones, activation=activation) for f in (gate, reference))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0, equal_nan=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_at_extremes(activation: str, device: str) -> None:
    gates = torch.tensor(EXTREMES, device=device)
    results = []
    for f, dtype in ((gate, torch.float32), (reference, torch.float64)):
        leaf = gates.to(dtype).requires_grad_()
        (grad,) = torch.autograd.grad(f(torch.ones_like(leaf), leaf, activation=activation).sum(), leaf)
        results.append(grad.float())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-16)  # PyTorch's 1 - tanh² is 0 at 20


def exact_activation(activation: str, u: Tensor) -> Tensor:
    """In float64, and where PyTorch's loses the tail otherwise."""
    if activation == "gelu":
        return u * 0.5 * torch.erfc(-u / 2**0.5)
    return ACTIVATIONS[activation](u)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_accuracy(activation: str, device: str) -> None:
    """Units in the last place of the result, in the tails too."""
    u = torch.cat(
        [torch.linspace(-89, 89, 200_001), torch.linspace(-6, 6, 200_001), torch.randn(100_000) / 100]
    )
    u = u.to(device)
    exact = exact_activation(activation, u.double())
    ours = gate(torch.ones_like(u), u, activation=activation).double()
    unit = torch.finfo(torch.float32).eps * torch.exp2(exact.abs().clamp_min(1e-300).log2().floor())
    error = ((ours - exact).abs() / unit)[exact.abs() > SMALL]
    # gelu's tail is a product of three, each rounded, and near 0 it is what 1/2 is the rest of
    assert error.max().item() < (6 if activation == "gelu" else 3.5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", [2, 3, 5, 8, 15])
def test_high_orders(activation: str, order: int, device: str) -> None:
    """By the same recursion in the definition's own derivatives: that of order n - 1 differentiated."""
    u = torch.linspace(-6, 6, 501, dtype=torch.float64, device=device).requires_grad_()
    rest = NUMBERS[activation], -1
    below = torch.ops.equiconv.gate(torch.ones_like(u), u, None, None, *rest, order - 1)
    (expected,) = torch.autograd.grad(below.sum(), u)
    ours = torch.ops.equiconv.gate(torch.ones_like(u), u.detach(), None, None, *rest, order)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())
    step = 1e-4  # and not only by itself
    u = u.detach()
    at = [
        torch.ops.equiconv.gate(torch.ones_like(u), v, None, None, *rest, order - 1)
        for v in (u + step, u - step)
    ]
    slopes = (at[0] - at[1]) / (2 * step)
    if activation not in ("relu", "identity"):
        torch.testing.assert_close(ours, slopes, rtol=1e-4, atol=1e-4 * slopes.abs().max().item())


def test_an_order_too_high_is_refused() -> None:
    x = torch.randn(3)
    with pytest.raises(ValueError, match=r"^gate: order must be 0 to 16, but is 17$"):
        torch.ops.equiconv.gate(x, x, None, None, 1, -1, 17)
    with pytest.raises(ValueError, match=r"^gate: activation must be 0 \(identity\), .*, but is 6$"):
        torch.ops.equiconv.gate(x, x, None, None, 6, -1, 0)


@pytest.mark.parametrize("dim", [-1, 1, 0])
def test_is_glu(dim: int, device: str) -> None:
    x = torch.randn(4, 6, 8, device=device)
    torch.testing.assert_close(gate(x, dim=dim), torch.nn.functional.glu(x, dim), rtol=1e-6, atol=1e-6)


def test_reads_negative_views(device: str) -> None:
    z = torch.randn(2, 3, 8, dtype=torch.complex64, device=device)
    contract.assert_same_bits([gate(z.conj().imag)], [gate(-z.imag.clone())])


def test_packed_has_the_bits_of_two(device: str) -> None:
    x, bias = torch.randn(50, 60, device=device, requires_grad=True), torch.randn(30, device=device)
    y = gate(x, bias=bias, activation="silu")
    apart = gate(*x.chunk(2, -1), bias=bias, activation="silu")
    grad_out = torch.randn_like(y)
    contract.assert_same_bits([y], [apart])
    contract.assert_same_bits(torch.autograd.grad(y, x, grad_out), torch.autograd.grad(apart, x, grad_out))


def test_strides_beyond_32_bits(device: str) -> None:
    """Room for 2**31 elements and more, of which a CPU only touches those that are used."""
    step = 2**31 + 64
    x = torch.empty(step + 100, dtype=torch.bfloat16, device=device).as_strided((2, 100), (step, 1))
    x.copy_(torch.randn(2, 100))
    contract.assert_same_bits([gate(x)], [gate(x.contiguous())])


def test_more_than_2_to_the_31_elements(device: str) -> None:
    """All the same one in memory; only a bias's gradient is written."""
    one = torch.ones(1, 1, device=device)
    rows, channels = 2**16 + 1, 2**15
    x = one.expand(rows, channels)
    bias = torch.zeros(channels, device=device)
    grads = torch.ops.equiconv.gate_backward(x, x, x, bias, None, 0, -1, 0, False, False, True, False)
    assert (grads[2] == rows).all()


def test_more_than_2_to_the_31_elements_traced() -> None:
    x = torch.empty(2**20, 4096, device="meta")
    assert gate(x).shape == (2**20, 2048)


def test_extra_memory() -> None:
    """Beside results nothing, forward; backward a few sums."""
    code = """
import resource, torch
from equiconv import gate
torch.set_num_threads(2)
x, bias = torch.randn(4000, 2000), torch.randn(1000)
small = x[:2].clone().requires_grad_()
gate(small, bias=bias).sum().backward()  # threads, and their stacks
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
grad_out = torch.randn(4000, 1000)
before = peak()
y = gate(x, bias=bias)
middle = peak()
args = (x, None, bias, bias, 1, -1, 0)
grads = torch.ops.equiconv.gate_backward(grad_out, *args, True, False, True, True)
print(middle - before - y.nbytes, peak() - middle - grads[0].nbytes)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    forward, backward = map(int, run.stdout.split())
    assert forward < 1e6  # the result has 16 MB
    assert backward < 3e6  # a gradient of the gate alone would have 16 MB


# ---- the module and the example ----------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_module(bias: bool) -> None:
    layer = GatedLinearUnit(6, 4, "silu", bias=bias)
    x = torch.randn(3, 5, 6)
    value, control = layer.projection(x).chunk(2, -1)
    torch.testing.assert_close(layer(x), value * torch.nn.functional.silu(control))
    layer(x).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "projection.weight": (8, 6),
        **({"projection.bias": (8,)} if bias else {}),
    }
    assert repr(layer) == (
        "GatedLinearUnit(\n  activation=silu\n"
        f"  (projection): Linear(in_features=6, out_features=8, bias={bias})\n)"
    )


def test_module_refuses() -> None:
    with pytest.raises(ValueError, match=r"^GatedLinearUnit: activation must be identity, .*, but is swish$"):
        GatedLinearUnit(3, 4, "swish")


def test_example() -> None:
    """It learns what needs positions to meet."""
    example = Path(__file__).parent.parent / "examples" / "spatial_gating.py"
    run = subprocess.run(
        [sys.executable, str(example), "--steps", "150"], capture_output=True, text=True, check=True
    )
    first, last = (float(line.split()[-1]) for line in run.stdout.splitlines() if line.startswith("step"))
    assert last < 0.3 * first
