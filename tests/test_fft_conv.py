from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import contract
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.fft_conv import fft_conv as on_emulator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from equiconv import fft_conv
from equiconv.ops.check import LAYOUTS, MODES
from equiconv.reference.fft_conv import fft_conv as reference

SHARED, PER_SAMPLE = "DK", "BDK"
GATES = ("pre_gate", "post_gate")


def sample(
    name: str,
    batch: int,
    channels: int,
    length: int,
    taps: int,
    mode: str,
    *,
    filter: str = SHARED,
    layout: str = "bdl",
    extras: Iterable[str] = (),
    **kind: Any,
) -> Sample:
    signal = layout.upper()
    shapes = {"x": signal, "filter": filter, "skip": "D", **dict.fromkeys(GATES, signal)}
    tensors = {key: shapes[key] for key in ("x", "filter", *extras)}
    sizes = {"B": batch, "D": channels, "L": length, "K": taps}
    return Sample(name, tensors, sizes, {"mode": mode, "layout": layout}, **kind)


ALL = (*GATES, "skip")
SAMPLES = (
    # Small: also differentiated to every order and compiled.
    sample("causal", 2, 2, 6, 4, "causal", extras=ALL),
    sample("bidirectional", 2, 2, 5, 4, "bidirectional", filter=PER_SAMPLE, layout="bld", extras=ALL),
    sample("circular", 2, 2, 5, 5, "circular", extras=["skip"], layout="bld"),
    sample("strided", 2, 2, 5, 5, "circular", filter=PER_SAMPLE, extras=ALL, strided=True),
    sample("plain", 2, 3, 7, 7, "causal"),
    sample("plain-per-sample", 2, 2, 4, 3, "circular", filter=PER_SAMPLE),
    sample("pre-gated", 1, 2, 6, 11, "bidirectional", extras=["pre_gate"]),
    sample("post-gated", 2, 1, 8, 8, "causal", filter=PER_SAMPLE, extras=["post_gate"]),
    sample("one-position", 2, 3, 1, 1, "causal", extras=ALL),
    sample("one-position-circular", 1, 2, 1, 1, "circular", filter=PER_SAMPLE, layout="bld"),
    sample("one-tap", 2, 2, 6, 1, "bidirectional", extras=["skip"]),
    sample("no-batch", 0, 3, 5, 4, "causal", extras=ALL),
    sample("no-batch-per-sample", 0, 3, 5, 4, "circular", filter=PER_SAMPLE, extras=ALL, layout="bld"),
    sample("no-channels", 2, 0, 5, 5, "bidirectional", extras=ALL),
    sample("no-positions", 2, 3, 0, 1, "causal", extras=ALL),
    # Larger: values, bits, threads. Primes, powers, one off; taps few and many.
    sample("prime", 3, 5, 127, 127, "circular", extras=ALL),
    sample("prime-causal", 2, 3, 1009, 500, "causal", filter=PER_SAMPLE, extras=ALL, layout="bld"),
    sample("power", 2, 4, 1024, 1024, "causal", extras=ALL),
    sample("power-circular", 2, 3, 512, 512, "circular", filter=PER_SAMPLE, layout="bld", extras=ALL),
    sample("longest-filter", 2, 3, 300, 599, "bidirectional", extras=["skip"]),
    sample("few-taps", 2, 3, 700, 3, "bidirectional", extras=ALL),
    sample("composite", 2, 3, 1260, 1260, "circular", extras=["pre_gate"], layout="bld"),
    sample("long", 1, 2, 20011, 20011, "causal", extras=ALL),
    sample("long-circular", 1, 1, 40000, 40000, "circular", filter=PER_SAMPLE),
    sample("many-rows", 5, 33, 64, 64, "causal", layout="bld", extras=ALL),
    sample(
        "strided-long", 3, 7, 250, 250, "causal", filter=PER_SAMPLE, extras=ALL, strided=True, layout="bld"
    ),
    sample("float32-weights", 2, 3, 100, 80, "causal", extras=ALL, float32=frozenset(["filter", "skip"])),
)

REFUSALS = (
    Refusal(
        "fft_conv: mode must be causal, bidirectional or circular, but is same", options={"mode": "same"}
    ),
    Refusal("fft_conv: layout must be bdl or bld, but is dbl", options={"layout": "dbl"}),
    Refusal("fft_conv: x must be (B, D, L), but has shape (2, 6)", {"x": lambda x: x[0]}),
    Refusal(
        "fft_conv: x must be (B, L, D), but has shape (2, 6)",
        {"x": lambda x: x[0]},
        options={"layout": "bld"},
    ),
    Refusal(
        "fft_conv: x must be float32, float64, bfloat16 or float16, but is int64", {"x": lambda x: x.long()}
    ),
    Refusal(
        "fft_conv: x must be float32, float64, bfloat16 or float16, but is complex64",
        {"x": lambda x: x.to(torch.complex64)},
    ),
    Refusal("fft_conv: filter must be (D, Lf) or (B, D, Lf), but has shape (4,)", {"filter": lambda k: k[0]}),
    Refusal(
        "fft_conv: filter must be (D, Lf) or (B, D, Lf), but has shape ()", {"filter": lambda k: k[0, 0]}
    ),
    Refusal(
        "fft_conv: filter must have the dtype of x, float32, but has float16", {"filter": lambda k: k.half()}
    ),
    Refusal(
        "fft_conv: filter must have the dtype of x, float32, but has complex64",
        {"filter": lambda k: k.to(torch.complex64)},
    ),
    Refusal(
        "fft_conv: filter must have the dtype of x, bfloat16, or float32, but has float64",
        {"x": lambda x: x.bfloat16(), "filter": lambda k: k.double()},
    ),
    Refusal(
        "fft_conv: filter must have the batch of x, 2, but has 3", {"filter": lambda k: k.expand(3, -1, -1)}
    ),
    Refusal("fft_conv: filter must have the channels of x, 2, but has 1", {"filter": lambda k: k[:1]}),
    Refusal(
        "fft_conv: filter must have 1 to 6 taps where mode is causal and the length of x is 6, but has 7",
        {"filter": lambda k: k[:, :1].expand(-1, 7)},
    ),
    Refusal(
        "fft_conv: filter must have 1 to 11 taps where mode is bidirectional and the length of x is 6, "
        "but has 12",
        {"filter": lambda k: k[:, :1].expand(-1, 12)},
        options={"mode": "bidirectional"},
    ),
    Refusal(
        "fft_conv: filter must have 1 to 6 taps where mode is circular and the length of x is 6, but has 0",
        {"filter": lambda k: k[:, :0]},
        options={"mode": "circular"},
    ),
    Refusal(
        "fft_conv: filter must be on the device of x, {device}, but is on meta",
        {"filter": lambda k: k.to("meta")},
    ),
    Refusal(
        "fft_conv: pre_gate must have the shape of x, (2, 2, 6), but has (2, 2, 5)",
        {"pre_gate": lambda p: p[:, :, 1:]},
    ),
    Refusal(
        "fft_conv: post_gate must have the shape of x, (2, 2, 6), but has (2, 6)",
        {"post_gate": lambda q: q[0]},
    ),
    Refusal(
        "fft_conv: post_gate must have the dtype of x, bfloat16, but has float32",
        {name: lambda t: t.bfloat16() for name in ("x", "pre_gate")},
    ),
    Refusal(
        "fft_conv: skip must have shape (2,), one for each channel of x, but has (1,)",
        {"skip": lambda d: d[:1]},
    ),
    Refusal(
        "fft_conv: skip must have shape (2,), one for each channel of x, but has (2, 1)",
        {"skip": lambda d: d[:, None]},
    ),
    Refusal("fft_conv: skip must have the dtype of x, float32, but has int32", {"skip": lambda d: d.int()}),
)


@st.composite
def random_samples(draw: st.DrawFn) -> Sample:
    length = draw(st.integers(1, 400) | st.integers(1, 12))
    mode = draw(st.sampled_from(["causal", "bidirectional", "circular"]))
    return sample(
        "random",
        draw(st.integers(1, 3)),
        draw(st.integers(1, 5)),
        length,
        draw(st.integers(1, 2 * length - 1 if mode == "bidirectional" else length)),
        mode,
        filter=draw(st.sampled_from([SHARED, PER_SAMPLE])),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        extras=[name for name in ALL if draw(st.booleans())],
        strided=draw(st.booleans()),
        float32=frozenset(name for name in ("filter", "skip") if draw(st.booleans())),
    )


def dispatched(
    tensors: Mapping[str, Tensor], options: Mapping[str, str]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    arguments = tuple(tensors.get(name) for name in ("x", "filter", *ALL))
    args = (*arguments, MODES[options["mode"]], LAYOUTS[options["layout"]])
    grad_out = torch.randn_like(tensors["x"], requires_grad=True)
    yield torch.ops.equiconv.fft_conv.default, args
    yield torch.ops.equiconv.fft_conv_backward.default, (grad_out, *args, *(True,) * 5)
    yield torch.ops.equiconv.fft_conv_backward.default, (grad_out, *args, False, True, False, True, False)


def exact(
    x: Tensor,
    filter: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    mode: str,
    layout: str,
) -> Tensor:
    """With transforms of a power of two points: torch.fft is a hundred times less accurate at some others."""
    if x.numel() == 0:
        return x.clone()
    u = x if pre_gate is None else pre_gate * x
    u = u if layout == "bdl" else u.mT
    length, taps = u.shape[-1], filter.shape[-1]
    n = 2 ** (length + taps - 2).bit_length()
    full: Tensor = torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(filter, n=n), n=n)
    start = (taps - 1) // 2 if mode == "bidirectional" else 0
    y = full[..., start : start + length]
    if mode == "circular":
        y = y + torch.nn.functional.pad(full[..., length : length + taps - 1], (0, length - taps + 1))
    y = y if skip is None else y + skip[:, None] * u
    y = y if layout == "bdl" else y.mT
    return y if post_gate is None else post_gate * y


class TestContract(contract.Contract):
    op = Op(
        function=fft_conv,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random_samples(),
        groups=(("x",), ("filter", "skip"), ("pre_gate",), ("post_gate",)),
        grown=lambda sizes: {
            "B": sizes["B"] + 2,
            "D": sizes["D"] + 3,
            "L": sizes["L"] + 5,
            "K": sizes["K"] + 1,
        },
        weights=("filter", "skip"),
        exact=exact,
        of_squares=exact,  # the op sums products of the arguments' entries
        dispatched=dispatched,
        on_emulator=on_emulator,
    )


# ---- what is special about a convolution -------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 31, 64, 100])
def test_circular_commutes_with_shifts(length: int, device: str) -> None:
    tensors = sample("", 2, 3, length, length, "circular", extras=ALL).make(torch.float64, device)
    y = fft_conv(**tensors, mode="circular")
    for shift in (1, length // 2, length - 1):
        rolled = {k: t.roll(shift, -1) if k in ("x", *GATES) else t for k, t in tensors.items()}
        torch.testing.assert_close(fft_conv(**rolled, mode="circular"), y.roll(shift, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [2, 31, 256, 1000])
def test_causal_ignores_the_future(length: int, device: str) -> None:
    """To rounding of the size of the future: a transform mixes all positions of a row, then parts them."""
    tensors = sample("", 2, 3, length, length, "causal", extras=["skip"]).make(torch.float64, device)
    y = fft_conv(**tensors)
    now = length // 2
    changed = tensors["x"].detach().clone()
    changed[..., now:] += 100
    y_changed = fft_conv(**{**tensors, "x": changed})
    size = 100 * tensors["filter"].abs().sum(-1).max().item()
    assert (y_changed - y)[..., :now].abs().max().item() <= 1e-15 * size
    assert (y_changed - y)[..., now].abs().min().item() > 0


@pytest.mark.parametrize("taps", [1, 2, 5, 8])
def test_bidirectional_is_numpy_same(taps: int, device: str) -> None:
    x, k = torch.randn(8, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    y = fft_conv(x[None, None].to(device), k[None].to(device), mode="bidirectional")
    np.testing.assert_allclose(y[0, 0].cpu().numpy(), np.convolve(x.numpy(), k.numpy(), "same"), atol=1e-14)


@pytest.mark.parametrize("mode", ["causal", "bidirectional", "circular"])
@pytest.mark.parametrize("filter", [SHARED, PER_SAMPLE])
def test_rows_are_independent(mode: str, filter: str, device: str) -> None:
    """A row has the same bits alone as among others, and keeps its NaN and infinities to itself."""
    tensors = contract.detached(
        sample("", 3, 5, 200, 150, mode, filter=filter, extras=ALL).make(torch.float32, device)
    )
    y = fft_conv(**tensors, mode=mode)
    row = {name: (t[1:2, 3:4] if t.dim() == 3 else t[3:4]) for name, t in tensors.items()}
    contract.assert_same_bits([fft_conv(**row, mode=mode)], [y[1:2, 3:4]])

    others = torch.ones(3, 5, dtype=torch.bool, device=device)
    others[1, 3] = False
    for poison in (float("nan"), float("inf")):
        x = tensors["x"].clone()
        x[1, 3, 17] = poison
        poisoned = fft_conv(**{**tensors, "x": x}, mode=mode)
        assert not poisoned[1, 3].isfinite().all()
        contract.assert_same_bits([poisoned[others]], [y[others]])


def test_nan_of_one_row_reaches_only_its_gradients(device: str) -> None:
    samples = sample("", 3, 4, 50, 50, "causal", filter=PER_SAMPLE, extras=GATES)
    tensors = samples.make(torch.float32, device)
    _, *clean = contract.value_and_gradients(fft_conv, samples, tensors)
    with torch.no_grad():
        tensors["x"][1, 2, 5] = float("nan")
    _, *poisoned = contract.value_and_gradients(fft_conv, samples, tensors)
    others = torch.ones(3, 4, dtype=torch.bool, device=device)
    others[1, 2] = False
    for a, b in zip(poisoned, clean, strict=True):
        contract.assert_same_bits([a[others]], [b[others]])


def test_reads_negative_views(device: str) -> None:
    """The imaginary part of a conjugate is a view that stores the opposite of what it holds."""
    z = torch.randn(2, 3, 8, dtype=torch.complex64, device=device)
    k = torch.randn(3, 8, device=device)
    contract.assert_same_bits([fft_conv(z.conj().imag, k)], [fft_conv(-z.imag.clone(), k)])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strides_beyond_32_bits(axis: int, device: str) -> None:
    """Room for 2**31 elements and more, 5 GB, of which a CPU only touches those that are used."""
    step = [500, 100, 1]
    step[axis] = 2**31 // 8 if axis == 2 else 2**31 + 64
    shape = (2, 2, 9) if axis == 2 else (2, 2, 100)
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, step, strict=True))
    x = torch.empty(span, dtype=torch.bfloat16, device=device).as_strided(shape, step)
    x.copy_(torch.randn(shape))
    k = torch.randn(2, shape[-1], dtype=torch.bfloat16, device=device)
    contract.assert_same_bits([fft_conv(x, k)], [fft_conv(x.contiguous(), k)])


def test_more_than_2_to_the_31_elements_traced() -> None:
    x = torch.empty(2**20, 64, 64, device="meta")
    assert fft_conv(x, torch.empty(64, 64, device="meta")).numel() == 2**32


@pytest.mark.parametrize(("kind", "most"), [("cpu", 2**30), ("cuda", 2**22)])
def test_refuses_too_long_a_row(kind: str, most: int) -> None:
    """Where it runs, if it can here, and where it is only traced."""
    sentence = f"^fft_conv: x must have at most {most} positions, but has {most + 1}$"
    for traced in (False, True) if kind in contract.DEVICES else (True,):
        with FakeTensorMode() if traced else contextlib.nullcontext():
            x, filter = torch.empty(2, 3, 1, device=kind), torch.empty(3, 1, device=kind)
            with pytest.raises(ValueError, match=sentence):
                fft_conv(x.expand(-1, -1, most + 1), filter)


@pytest.mark.skipif("cuda" not in contract.DEVICES, reason="no GPU")
def test_refuses_too_many_rows() -> None:
    x, filter = torch.empty(1, 1, 1, device="cuda"), torch.empty(1, 1, device="cuda")
    with pytest.raises(
        ValueError, match=r"^fft_conv: x must have at most 2147483648 rows, .* 65537 x 32768$"
    ):
        fft_conv(x.expand(65537, 32768, -1), filter.expand(32768, -1))


@pytest.mark.cuda
@pytest.mark.skipif("cuda" not in contract.DEVICES, reason="no CUDA device")
def test_refuses_two_devices() -> None:
    here, there = torch.randn(2, 3, 8), torch.randn(2, 3, 8, device="cuda")
    k = torch.randn(3, 8)
    for x, filter, gate, name in (
        (there, k, None, "filter"),
        (here, k.cuda(), None, "filter"),
        (there, k.cuda(), here, "pre_gate"),
        (here, k, there, "pre_gate"),
    ):
        other = gate.device if gate is not None else filter.device
        sentence = f"^fft_conv: {name} must be on the device of x, {x.device}, but is on {other}$"
        with pytest.raises(ValueError, match=sentence):
            fft_conv(x, filter, pre_gate=gate)


@pytest.mark.parametrize("traced", [False, True])
def test_refuses_unknown_numbers(traced: bool, device: str) -> None:
    """The dispatcher op, which programs can call themselves, has numbers for mode and layout."""
    op = torch.ops.equiconv.fft_conv
    with FakeTensorMode() if traced else contextlib.nullcontext():
        x, filter = torch.empty(2, 3, 8, device=device), torch.empty(3, 8, device=device)
        for mode in (-1, 3):
            with pytest.raises(
                ValueError, match=r"0 \(causal\), 1 \(bidirectional\) or 2 \(circular\), but is"
            ):
                op(x, filter, None, None, None, mode, 0)
        for layout in (-1, 2):
            with pytest.raises(ValueError, match=r"^fft_conv: layout must be 0 \(bdl\) or 1 \(bld\), but is"):
                op(x, filter, None, None, None, 0, layout)


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [("x", Tensor.to_sparse, "sparse_coo"), ("filter", Tensor.to_mkldnn, "_mkldnn")],
)
def test_refuses_what_is_not_strided(name: str, change: Callable[[Tensor], Tensor], kind: str) -> None:
    tensors: dict[str, Any] = {"x": torch.randn(2, 3, 8), "filter": torch.randn(3, 8)}
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=f"^fft_conv: {name} must be strided, but is {kind}$"):
        fft_conv(**tensors)


# A device for which there is no kernel, as CUDA is where equiconv was built without it.
ELSEWHERE = """
import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from equiconv import fft_conv

_setup_privateuseone_for_python_backend("elsewhere")

@torch.library.impl("aten::empty.memory_format", "privateuseone")
def empty(size, dtype=None, *unused, **unused_too):
    return torch._C._acc.create_empty_tensor(size, dtype or torch.float32)

here = torch.randn(2, 3, 8), torch.randn(3, 8)
there = torch.empty(2, 3, 8, device="elsewhere"), torch.empty(3, 8, device="elsewhere")
backward = torch.ops.equiconv.fft_conv_backward

for call in (
    lambda: fft_conv(*there),
    lambda: fft_conv(torch.empty(2, 3, 8, device="elsewhere", requires_grad=True), there[1]),
    lambda: fft_conv(there[0], here[1]),
    lambda: backward(there[0], *there, None, None, None, 0, 0, True, True, False, False, False),
    lambda: torch.compile(fft_conv, backend="aot_eager")(*there),
    lambda: fft_conv(here[0], there[1]),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif("cuda" in contract.DEVICES, reason="the sentence names cuda too")
def test_refuses_a_device_without_kernels() -> None:
    run = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    sentence = "fft_conv: x must be on cpu, for which equiconv was built, but is on elsewhere:0"
    other = "fft_conv: filter must be on the device of x, cpu, but is on elsewhere:0"
    assert run.stdout.splitlines() == [sentence] * 5 + [other]


MEMORY = """
import torch
from equiconv import fft_conv
from equiconv.ops.check import LAYOUTS, MODES

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(2)
x, gate = torch.randn(2, 16, 512, 2048)
filter = torch.randn(512, 2048)
step = {step}
step()  # whatever is set up once
before = status("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
results = step()
extra = status("VmHWM:") - before - sum(r.nbytes for r in results)
print(extra, {allowed})
"""
# What is allowed beyond the results; x has 64 MiB, a row 8 KiB. The gradient of a shared filter is summed
# beside its place, in parts of fixed order.
STEPS = {
    "forward": ("lambda: (fft_conv(x, filter, pre_gate=gate, post_gate=gate),)", "2**20"),
    "backward": (
        "lambda: torch.ops.equiconv.fft_conv_backward("
        "x, x, filter, gate, gate, None, 0, 0, True, True, True, True, False)",
        "2**20 + filter.nbytes",
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("step", STEPS)
def test_allocates_no_second_signal(step: str) -> None:
    code = MEMORY.format(step=STEPS[step][0], allowed=STEPS[step][1])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    extra, allowed_bytes = map(int, run.stdout.split())
    assert extra < allowed_bytes


# Bytes that malloc has given out and not had back, after many calls less before them. One call that kept the
# smallest block that malloc gives, 32 bytes, would make 160 000; what is set up once and late, such as
# Python's own pools, came to 4000 and not more with ten times the calls.
LEAK = """
import ctypes, gc
import torch
from equiconv import fft_conv

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

def used():
    gc.collect()
    info = mallinfo()
    return info.uordblks + info.hblkhd

torch.set_num_threads(1)
x, pre, post = torch.randn(3, 2, 2, 8, requires_grad={backward}).unbind()
filter, skip = (torch.randn(shape, requires_grad={backward}) for shape in ((2, 8), (2,)))

def step():
    y = fft_conv(x, filter, pre_gate=pre, post_gate=post, skip=skip, mode="bidirectional")
    if {backward}:
        torch.autograd.grad(y, (x, filter, pre, post, skip), y.detach())

def steps(count):
    for _ in range(count):
        step()

steps(500)
before = used()
steps(5000)
print(used() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_keeps_no_memory(backward: bool) -> None:
    code = LEAK.format(backward=backward)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 40_000
