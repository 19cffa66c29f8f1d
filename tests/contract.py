"""What every op promises, as tests. An op's test file lists samples and refusals, and inherits the rest:

    class TestContract(contract.Contract):
        op = contract.Op(function=…, reference=…, samples=…, refusals=…, …)

`conftest.py` hands each test the samples, dtypes and devices that its arguments ask for.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from cuda_on_cpu.device import Device
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from equiconv import build_info

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
CAPABILITIES = ("baseline", "avx2", "avx512")  # what every op has kernels for
ALL_CAPABILITIES = (*CAPABILITIES, "avx512_bf16", "amx")  # pair_message for these too


@dataclasses.dataclass(frozen=True)
class Sample:
    """Arguments of an op: its tensors by the letters of their axes, the size of each letter, the rest.

    rest: by name, or what makes it from the sizes.

    strided: no tensor is contiguous. float32: tensors that stay float32 where the dtype is a half type.
    complex: tensors with complex entries.
    """

    name: str
    tensors: Mapping[str, str]
    sizes: Mapping[str, int]
    rest: Mapping[str, Any] | Callable[[Mapping[str, int]], Mapping[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    strided: bool = False
    float32: frozenset[str] = frozenset()
    complex: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name

    @functools.cached_property
    def options(self) -> Mapping[str, Any]:
        return self.rest(self.sizes) if callable(self.rest) else self.rest

    @property
    def elements(self) -> int:
        return sum(_product(self.sizes[axis] for axis in axes) for axes in self.tensors.values())

    @property
    def empty(self) -> bool:
        return 0 in self.sizes.values()

    def resized(self, **sizes: int) -> Sample:
        return dataclasses.replace(self, sizes={**self.sizes, **sizes})

    def make(self, dtype: torch.dtype, device: str, *, seed: int = 0) -> dict[str, Any]:
        """Leaves that require gradients."""
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name, axes in self.tensors.items():
            shape = [self.sizes[axis] for axis in axes]
            want = torch.float32 if name in self.float32 and dtype.itemsize == 2 else dtype
            if name in self.complex:
                want = torch.complex128 if want == torch.float64 else torch.complex64
            drawn = torch.complex128 if want.is_complex else torch.float64
            value = torch.randn(shape, generator=generator, dtype=drawn).to(device, want)
            made[name] = (_strided(value) if self.strided else value).requires_grad_()
        return made


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A change to the first sample that makes it wrong, and the sentence that says so, {device} being x's."""

    sentence: str
    tensors: Mapping[str, Callable[[Tensor], Tensor]] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence.split(": ", 1)[1].replace(" ", "-")


@dataclasses.dataclass(frozen=True)
class Op:
    """function, reference: called with a sample's tensors and options by name.

    dispatched: from tensors and options, the dispatcher ops behind the function with their arguments.
    groups: arguments that the op is linear in, those that are so only together in one group.
    grown: sizes that differ from those of a sample, given these, for programs with dynamic shapes.
    random: any valid sample. weights: tensors that autocast leaves in float32.
    exact: the reference, made to be as accurate in float64 as can be.
    of_squares: what the op sums, each summand squared, as a function of the arguments' squares. Of complex
        entries real and imaginary parts are squared apart.
    nonlinear: the op is not linear in some of its arguments. Then of_squares has `at` too, the arguments by
        name, and is of first order in their squares: where y = act(p) with a sum p, it is
        act(p)² + act'(p)² (the squares of p's summands), p and act taken at `at`.
    threads: for these numbers of threads the bits are the same.
    capabilities: the processors it has kernels of its own for.
    devices: the kinds of device it runs on.
    on_emulator: from a device of cuda_on_cpu, tensors, options and grad_out, the result and all gradients by
        the op's CUDA launchers; None where it has no CUDA kernels.
    """

    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    samples: tuple[Sample, ...]
    refusals: tuple[Refusal, ...]
    random: st.SearchStrategy[Sample]
    groups: tuple[tuple[str, ...], ...]
    grown: Callable[[Mapping[str, int]], dict[str, int]]
    weights: tuple[str, ...]
    exact: Callable[..., Tensor]
    of_squares: Callable[..., Tensor]
    nonlinear: bool = False
    dispatched: Callable[..., Iterable[tuple[Any, tuple[Any, ...]]]] = lambda tensors, options: ()
    threads: tuple[int, ...] = (1, 1, 2, 3)
    capabilities: tuple[str, ...] = CAPABILITIES
    devices: tuple[str, ...] = ("cpu", "cuda")
    on_emulator: Callable[..., list[Tensor]] | None = None

    @property
    def capability_in_use(self) -> str:
        """Which of its kernels run here: those of this processor, or of the best below it."""
        best = ALL_CAPABILITIES.index(build_info()["cpu_capability"])
        return max(set(self.capabilities) & set(ALL_CAPABILITIES[: best + 1]), key=ALL_CAPABILITIES.index)

    @property
    def small(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.elements <= 120]

    @property
    def tiny(self) -> list[Sample]:
        return [sample for sample in self.small if not sample.empty][:4]

    def positional(
        self, sample: Sample, function: Callable[..., Tensor] | None = None
    ) -> Callable[..., Tensor]:
        """The function of the sample's tensors, in their order."""
        return lambda *tensors: (function or self.function)(
            **dict(zip(sample.tensors, tensors, strict=True)), **sample.options
        )


class Contract:
    op: ClassVar[Op]

    # ---- values ----------------------------------------------------------------------------------------

    def test_values(self, sample: Sample, dtype: torch.dtype, device: str) -> None:
        """The result and all gradients, measured against the reference in float64."""
        check_against_reference(self.op, sample, sample.make(dtype, device))

    @hypothesis.given(data=st.data())
    def test_values_of_random_samples(self, device: str, data: st.DataObject) -> None:
        sample = data.draw(self.op.random)
        dtype = data.draw(st.sampled_from(DTYPES))
        check_against_reference(self.op, sample, sample.make(dtype, device))

    def test_each_cpu_capability(self, capability: str) -> None:
        """Values again, with the kernels of every other processor that this one can stand in for."""
        if capability == self.op.capability_in_use:
            pytest.skip("all other tests run with these kernels")
        environment = {**os.environ, "EQUICONV_CPU_CAPABILITY": capability}
        ask = "import equiconv; print(equiconv.build_info()['cpu_capability'])"
        used = _python("-c", ask, environment=environment).stdout.strip()
        if used != capability:
            pytest.skip(f"this processor has no {capability}")
        file = sys.modules[type(self).__module__].__file__
        plugins = ("-p", "no:cacheprovider", "-p", "no:xdist")
        tests = (f"{file}::{type(self).__name__}", "-k", "test_values", "-m", "not cuda")
        run = _python("-m", "pytest", "-q", *plugins, *tests, environment=environment)
        assert run.returncode == 0, run.stdout

    def test_cuda_kernels_on_a_cpu(self, sample: Sample, dtype: torch.dtype, emulator: Device) -> None:
        """Values again, by the CUDA kernels."""
        tensors = sample.make(dtype, "cpu")
        check_against_reference(self.op, sample, tensors, self.emulated(sample, tensors, emulator))

    def test_cuda_kernels_have_no_race(self, small: Sample, race_detector: Device) -> None:
        tensors = small.make(torch.float32, "cpu")
        race_detector.schedule("random:1")
        check_against_reference(self.op, small, tensors, self.emulated(small, tensors, race_detector))

    def emulated(self, sample: Sample, tensors: Mapping[str, Tensor], emulator: Device) -> list[Tensor]:
        assert self.op.on_emulator is not None  # else there are no samples, see conftest.py
        grad_out = random_like(self.op.reference(**detached(tensors), **sample.options))
        emulator.report()
        results = self.op.on_emulator(emulator, detached(tensors), sample.options, grad_out)
        assert emulator.report() == ""
        return results

    def test_is_linear(self, tiny: Sample, group: tuple[str, ...], device: str) -> None:
        """f(2a + 3b) = 2 f(a) + 3 f(b), in a group of arguments that are linear together."""
        a, b = (detached(tiny.make(torch.float64, device, seed=seed)) for seed in (0, 1))
        given = set(group) & set(a)
        if not given:
            pytest.skip("the sample has none of these arguments")
        f = self.op.function
        mixed = {name: 2 * a[name] + 3 * b[name] for name in given}
        left = f(**{**a, **mixed}, **tiny.options)
        right = 2 * f(**a, **tiny.options) + 3 * f(**{**a, **{n: b[n] for n in given}}, **tiny.options)
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12 * right.abs().max().item())

    def test_same_bits(self, sample: Sample, device: str) -> None:
        """Twice, and for any number of threads (or for those of which the op promises it)."""
        results = []
        threads = torch.get_num_threads()
        for count in self.op.threads:
            torch.set_num_threads(count)
            try:
                tensors = sample.make(torch.float32, device)
                results.append(value_and_gradients(self.op.function, sample, tensors))
            finally:
                torch.set_num_threads(threads)
        for result in results[1:]:
            assert_same_bits(result, results[0])

    # ---- derivatives -----------------------------------------------------------------------------------

    def test_gradcheck(self, small: Sample, device: str) -> None:
        """Reverse and forward mode, one by one and under vmap."""
        tensors = small.make(torch.float64, device)
        forward = {"check_forward_ad": True, "check_batched_forward_grad": True}
        assert gradcheck(
            self.op.positional(small), tuple(tensors.values()), check_batched_grad=True, **forward
        )

    def test_gradgradcheck(self, small: Sample, device: str) -> None:
        tensors = small.make(torch.float64, device)
        assert gradgradcheck(
            self.op.positional(small), tuple(tensors.values()), check_fwd_over_rev=True, fast_mode=True
        )

    def test_third_order(self, tiny: Sample, device: str) -> None:
        tensors = tuple(tiny.make(torch.float64, device).values())
        f = self.op.positional(tiny)
        direction = torch.randn_like(f(*tensors))

        def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(f(*tensors), tensors, direction, create_graph=True)

        assert gradgradcheck(gradients, tensors, fast_mode=True)

    def test_each_gradient_alone(self, tiny: Sample, device: str) -> None:
        """What is not asked for changes nothing in what is, and is not differentiated through."""
        tensors = tiny.make(torch.float64, device)
        _, *everything = value_and_gradients(self.op.function, tiny, tensors)
        for i, name in enumerate(tensors):
            only = {key: value if key == name else value.detach() for key, value in tensors.items()}
            y = self.op.function(**only, **tiny.options)
            (gradient,) = torch.autograd.grad(y, only[name], random_like(y))
            assert_same_bits([gradient], [everything[i]])

    def test_dtypes_and_strides_of_results(self, sample: Sample, dtype: torch.dtype, device: str) -> None:
        tensors = sample.make(dtype, device)
        y, *gradients = value_and_gradients(self.op.function, sample, tensors)
        assert y.dtype == dtype
        assert y.is_contiguous()
        for gradient, tensor in zip(gradients, tensors.values(), strict=True):
            assert gradient.dtype == tensor.dtype
            assert gradient.shape == tensor.shape

    # ---- torch's own machinery -------------------------------------------------------------------------

    def test_opcheck(self, small: Sample, device: str) -> None:
        for dispatched, args in self.op.dispatched(small.make(torch.float32, device), small.options):
            torch.library.opcheck(dispatched, args)

    @pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
    def test_compile(self, tiny: Sample, device: str, dynamic: bool) -> None:
        """One whole graph with the same bits; with dynamic shapes also one graph for two sizes."""
        torch._dynamo.reset()
        backend = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(self.op.function, fullgraph=True, dynamic=dynamic, backend=backend)
        grown = tiny.resized(**self.op.grown(tiny.sizes))
        # Sizes that happen to be equal in the first sample need not be in the next.
        with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            for sample in (tiny, grown) if dynamic else (tiny,):
                tensors = sample.make(torch.float32, device)
                ours = value_and_gradients(compiled, sample, tensors)
                assert_same_bits(ours, value_and_gradients(self.op.function, sample, tensors))
        assert backend.frame_count == 1

    def test_compile_with_inductor(self, device: str) -> None:
        torch._dynamo.reset()
        sample = self.op.tiny[0]
        tensors = sample.make(torch.float32, device)

        def model(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda **arguments: torch.tanh(function(**arguments)) * 2

        compiled = torch.compile(model(self.op.function), fullgraph=True)
        ours = value_and_gradients(compiled, sample, tensors)
        eager = value_and_gradients(model(self.op.function), sample, tensors)
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)  # inductor's tanh is not PyTorch's

    def test_export(self, tiny: Sample, device: str) -> None:
        f = self.op.positional(tiny)

        class Model(torch.nn.Module):
            def forward(self, *tensors: Tensor) -> Tensor:
                return f(*tensors)

        tensors = tuple(detached(tiny.make(torch.float32, device)).values())
        program = torch.export.export(Model(), tensors)
        assert_same_bits([program.module()(*tensors)], [f(*tensors)])

    def test_vmap(self, tiny: Sample, device: str) -> None:
        """Over each argument alone and over all, as a loop; so for gradients of every example."""
        f = self.op.positional(tiny)
        everything = tuple(range(len(tiny.tensors)))
        per_example = torch.func.grad(lambda *tensors: f(*tensors).abs().square().sum(), argnums=everything)
        examples = [detached(tiny.make(torch.float64, device, seed=seed)).values() for seed in range(3)]
        for batched in (*((i,) for i in everything), everything):
            columns = [
                column if i in batched else column[:1] * 3
                for i, column in enumerate(zip(*examples, strict=True))
            ]
            stacked = [torch.stack(c, -1) if i in batched else c[0] for i, c in enumerate(columns)]
            dims = tuple(-1 if i in batched else None for i in everything)
            for function in (lambda *tensors: (f(*tensors),), per_example):
                each = [function(*tensors) for tensors in zip(*columns, strict=True)]
                expected = tuple(map(torch.stack, zip(*each, strict=True)))
                ours = torch.vmap(function, in_dims=dims)(*stacked)
                torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)

    def test_vmap_over_no_entries(self, tiny: Sample, device: str) -> None:
        f = self.op.positional(tiny)
        tensors = tuple(detached(tiny.make(torch.float64, device)).values())
        everything = tuple(range(len(tensors)))
        per_example = torch.func.grad(lambda *tensors: f(*tensors).abs().square().sum(), argnums=everything)
        shape = f(*tensors).shape
        for batched in (*((i,) for i in everything), everything):
            none = [t.new_empty(*t.shape, 0) if i in batched else t for i, t in enumerate(tensors)]
            dims = tuple(-1 if i in batched else None for i in everything)
            assert torch.vmap(f, in_dims=dims)(*none).shape == (0, *shape)
            gradients = torch.vmap(per_example, in_dims=dims)(*none)
            assert [g.shape for g in gradients] == [(0, *t.shape) for t in tensors]

    @pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian", "forward over forward"])
    def test_torch_func(self, device: str, transform: str) -> None:
        sample = self.op.tiny[0]
        tensors = tuple(detached(sample.make(torch.float64, device)).values())
        differentiate = getattr(torch.func, transform, lambda f: torch.func.jacfwd(torch.func.jacfwd(f)))
        for i, tensor in enumerate(tensors):
            if tensor.is_complex() and transform != "grad":
                continue  # PyTorch has it for real inputs only

            def loss(function: Callable[..., Tensor], tensor: Tensor, i: int = i) -> Tensor:
                y = positional(function, sample)(*tensors[:i], tensor, *tensors[i + 1 :])
                return y.square().sum()

            ours, theirs = (
                differentiate(functools.partial(loss, function))(tensor)
                for function in (self.op.function, self.op.reference)
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    def test_activation_checkpointing(self, tiny: Sample, device: str) -> None:
        """What is saved may be asked for once only: it is computed again."""
        f = self.op.positional(tiny)
        tensors = tuple(tiny.make(torch.float64, device).values())

        def first_derivatives(*tensors: Tensor) -> tuple[Tensor, ...]:
            y = f(*tensors)
            return y, *torch.autograd.grad(y, tensors, random_like(y), create_graph=True)

        for function in (lambda *tensors: (f(*tensors),), first_derivatives):
            results = []
            for again in (False, True):
                made = checkpoint(function, *tensors, use_reentrant=False) if again else function(*tensors)
                parts = [y.abs().square().sum() for y in made if y.requires_grad]
                results.append(torch.autograd.grad(sum(parts), tensors, allow_unused=True))
            torch.testing.assert_close(*results, rtol=0, atol=0)

    @pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
    def test_autocast(self, tiny: Sample, device: str, low: torch.dtype) -> None:
        """As if everything but the weights had been cast; gradients come back in the leaves' dtypes."""
        tensors = tiny.make(torch.float32, device)
        cast = detached(tensors)
        for name in set(cast) - set(self.op.weights):
            cast[name] = cast[name].to(low)
        expected = self.op.function(**cast, **tiny.options)
        with torch.autocast(device, low):
            y = self.op.function(**tensors, **tiny.options)
            wide = self.op.function(**tiny.make(torch.float64, device), **tiny.options)
            gradients = torch.autograd.grad(y, tuple(tensors.values()), random_like(y), create_graph=True)
        assert y.dtype == low
        assert_same_bits([y], [expected])
        assert wide.dtype == torch.float64
        assert [g.dtype for g in gradients] == [t.dtype for t in tensors.values()]

    # ---- refusals --------------------------------------------------------------------------------------

    def test_refuses(self, refusal: Refusal, device: str) -> None:
        """A ValueError with exactly this sentence: where it runs, and where it is only traced."""
        sample = self.op.samples[0]
        tensors: dict[str, Tensor] = detached(sample.make(torch.float32, device))
        x = next(iter(tensors))
        for name, change in refusal.tensors.items():
            tensors[name] = change(tensors[name] if name in tensors else tensors[x])
        options = {**sample.options, **refusal.options}
        sentence = refusal.sentence.replace("{device}", str(tensors[x].device))
        assert self.refused(tensors, options) == sentence
        if any(tensor.device.type == "meta" for tensor in tensors.values()):
            return  # a traced program refuses two devices before it asks the op
        with FakeTensorMode() as mode:
            faked = tree_map_only(Tensor, mode.from_tensor, (tensors, options))
            assert self.refused(*faked) == sentence

    @pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
    def test_refuses_nested_tensors(self, device: str, layout: torch.layout) -> None:
        sample = self.op.samples[0]
        tensors = detached(sample.make(torch.float32, device))
        for name, tensor in tensors.items():
            nested = torch.nested.nested_tensor([tensor, tensor], layout=layout)
            sentence = self.refused({**tensors, name: nested}, sample.options)
            assert sentence.endswith(f": {name} must be strided, but is nested")

    def refused(self, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> str:
        with pytest.raises(ValueError, match=r"^\w+: ") as error:
            self.op.function(**tensors, **options)
        return str(error.value)


# ---- what the tests measure with ---------------------------------------------------------------------------


def positional(function: Callable[..., Tensor], sample: Sample) -> Callable[..., Tensor]:
    def called(*tensors: Tensor) -> Tensor:
        return function(**dict(zip(sample.tensors, tensors, strict=True)), **sample.options)

    return called


def value_and_gradients(
    function: Callable[..., Tensor],
    sample: Sample,
    tensors: Mapping[str, Tensor],
    grad_out: Tensor | None = None,
) -> list[Tensor]:
    y = function(**tensors, **sample.options)
    maybe_unused = {"allow_unused": True, "materialize_grads": True} if sample.empty else {}
    grad_out = random_like(y) if grad_out is None else grad_out
    return [y.detach(), *torch.autograd.grad(y, tuple(tensors.values()), grad_out, **maybe_unused)]


def check_against_reference(
    op: Op, sample: Sample, tensors: dict[str, Tensor], ours: list[Tensor] | None = None
) -> None:
    """Every error of the op's result and gradients, or of `ours`, relative to a tensor's size: its largest
    entry, or if larger, what rounding grows with.

    The largest entry alone is no measure where by chance everything cancels, as with one tap that is minus
    the skip, or in the gradient of a skip, which is one sum over batch and length. Rounding grows with the
    root of the sum of the squares of what is summed, and as the op is linear in each argument (or near
    enough, see Op.nonlinear), squares of its arguments give it, for the result and for every gradient.
    """
    ours = value_and_gradients(op.function, sample, tensors) if ours is None else ours
    theirs = value_and_gradients(op.reference, sample, tensors)
    wide = {name: _widened(tensor).requires_grad_() for name, tensor in tensors.items()}
    grad_out = _widened(random_like(ours[0]))  # rounded as the one before, so not drawn anew
    exact = value_and_gradients(op.exact, sample, wide, grad_out)
    squares = {name: _squared(tensor.detach()).requires_grad_() for name, tensor in wide.items()}
    of_squares = functools.partial(op.of_squares, at=detached(wide)) if op.nonlinear else op.of_squares
    summands = value_and_gradients(of_squares, sample, squares, grad_out.square())
    for name, a, b, c, d in zip(["the result", *tensors], ours, theirs, exact, summands, strict=True):
        squared = torch.view_as_real(d).sum(-1) if d.is_complex() else d
        size = max(c.abs().max().item(), max(squared.max().item(), 0) ** 0.5) if c.numel() else 0.0
        check_error(name, a, b, c, size)


def check_error(name: str, ours: Tensor, theirs: Tensor, exact: Tensor, size: float) -> None:
    """Ours against that of PyTorch in the same dtype.

    Either may be lucky, so some units of rounding are free. n terms summed one after another err by about
    0.4 √n of them, relative to the root of the sum of their squares: 3 for 64 terms, and thrice that in the
    worst of a tensor's entries. In float64 `exact` is torch.fft's too and has an error of its own: up to 100
    units on Intel processors. A gradient of rows of 60 was 3e-13 off the sums in extended precision there,
    and fft_conv's 4e-15.
    """
    assert ours.shape == exact.shape
    if size == 0:
        assert not ours.any(), name
        return
    our_error, their_error = ((_widened(t) - exact).abs().max().item() / size for t in (ours, theirs))
    if ours.dtype in (torch.bfloat16, torch.float16):
        allowed = 2 * their_error + 16 * 2**-24  # what is computed in float32 before the one rounding
    elif ours.dtype in (torch.float32, torch.complex64):
        allowed = 1.2 * their_error + 10 * 2**-24
    else:
        allowed = 1.2 * their_error + 100 * 2**-53
    errors = f"error {our_error:.2e}, PyTorch {their_error:.2e}, allowed {allowed:.2e}"
    assert our_error <= allowed, f"{name}: {errors}"


def assert_same_bits(ours: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), f"result {i} differs by up to {(a - b).abs().max().item():.2e}"


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


def random_like(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    return torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.device, y.dtype)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


def _squared(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return torch.view_as_complex(torch.view_as_real(tensor).square())
    return tensor.square()


def _strided(tensor: Tensor) -> Tensor:
    """The same values where no two neighbours touch and the axes lie in reversed order."""
    order = tuple(reversed(range(tensor.dim())))
    room = tensor.new_zeros([2 * tensor.shape[i] + 1 for i in order]).permute(order)
    view = room[tuple(slice(1, 1 + 2 * size, 2) for size in tensor.shape)]
    view.copy_(tensor)
    return view


def _product(sizes: Iterable[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _python(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=dict(environment), capture_output=True, text=True)
