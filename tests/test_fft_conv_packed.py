from __future__ import annotations

import itertools
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from torch import Tensor

from equiconv import fft_conv, fft_conv_packed
from equiconv.reference.fft_conv_packed import fft_conv_packed as reference

GATES = ("pre_gate", "post_gate")
ALL = (*GATES, "skip")


def sample(
    name: str,
    bounds: list[int],
    taps: int,
    mode: str = "causal",
    *,
    channels: int = 2,
    per_sequence: bool = False,
    layout: str = "bdl",
    extras: tuple[str, ...] = (),
    **kind: Any,
) -> Sample:
    signal = layout.upper()
    filter = "NDK" if per_sequence else "DK"
    shapes = {"x": signal, "filter": filter, "skip": "D", **dict.fromkeys(GATES, signal)}
    sizes = {"B": 1, "D": channels, "L": bounds[-1], "K": taps, "N": len(bounds) - 1}
    tensors = {key: shapes[key] for key in ("x", "filter", *extras)}
    return Sample(name, tensors, sizes, {"cu_seqlens": bounds, "mode": mode, "layout": layout}, **kind)


SAMPLES = (
    sample("causal", [0, 4, 7], 3, extras=ALL),
    sample("bidirectional", [0, 2, 7], 5, "bidirectional", per_sequence=True, layout="bld", extras=ALL),
    sample("circular", [0, 3, 7], 3, "circular", per_sequence=True, extras=ALL, layout="bld"),
    sample("strided", [0, 3, 3, 7], 5, per_sequence=True, extras=ALL, strided=True),
    sample("plain", [0, 1, 6, 7], 7),
    sample("one-sequence", [0, 6], 4, extras=("skip",)),
    sample("short-and-long", [0, 1, 3], 9, "bidirectional", channels=3),
    sample("no-channels", [0, 3, 5], 2, channels=0, extras=ALL),
    sample("no-positions", [0, 0, 0], 1, extras=ALL),
    sample("many", [0, 5, 133, 134, 700, 1009], 1009, channels=3, extras=ALL),
    sample("many-circular", [0, 128, 640, 1009], 128, "circular", per_sequence=True, layout="bld"),
    sample(
        "many-bidirectional", [0, 300, 310, 811], 501, "bidirectional", layout="bld", extras=ALL, strided=True
    ),
    sample("float32-weights", [0, 40, 100], 80, extras=ALL, float32=frozenset(["filter", "skip"])),
)

REFUSALS = (
    Refusal(
        "fft_conv_packed: mode must be causal, bidirectional or circular, but is same",
        options={"mode": "same"},
    ),
    Refusal("fft_conv_packed: x must be (B, D, L), but has shape (2, 7)", {"x": lambda x: x[0]}),
    Refusal("fft_conv_packed: x must have a batch of 1, but has 2", {"x": lambda x: x.expand(2, -1, -1)}),
    Refusal(
        "fft_conv_packed: cu_seqlens must begin with 0, but begins with 1", options={"cu_seqlens": [1, 7]}
    ),
    Refusal(
        "fft_conv_packed: cu_seqlens must hold whole numbers, but has 3.5",
        options={"cu_seqlens": [0, 3.5, 7]},
    ),
    Refusal(
        "fft_conv_packed: cu_seqlens must not decrease, but has 3 after 5",
        options={"cu_seqlens": [0, 5, 3, 7]},
    ),
    Refusal(
        "fft_conv_packed: cu_seqlens must end with the length of x, 7, but ends with 6",
        options={"cu_seqlens": [0, 4, 6]},
    ),
    Refusal(
        "fft_conv_packed: cu_seqlens must have at least one entry, but has none", options={"cu_seqlens": []}
    ),
    Refusal(
        "fft_conv_packed: cu_seqlens must be int32 or int64, but is float32",
        options={"cu_seqlens": torch.tensor([0.0, 7])},
    ),
    Refusal(
        "fft_conv_packed: cu_seqlens must have shape (N + 1,), but has (1, 2)",
        options={"cu_seqlens": torch.tensor([[0, 7]])},
    ),
    Refusal(
        "fft_conv_packed: filter must be (D, Lf), (N, D, Lf) or N tensors (D, Lf), but has shape (3,)",
        {"filter": lambda k: k[0]},
    ),
    Refusal(
        "fft_conv_packed: filter must be shared or one for each sequence, 2, but there are 3",
        {"filter": lambda k: k.expand(3, -1, -1)},
    ),
    Refusal(
        "fft_conv_packed: filter must have the channels of x, 2, and a tap, but has shape (1, 3)",
        {"filter": lambda k: k[:1]},
    ),
    Refusal(
        "fft_conv_packed: filter must have the dtype of x, float32, but has float16",
        {"filter": lambda k: k.half()},
    ),
    Refusal(
        "fft_conv_packed: filter must have at most as many taps as each sequence has positions where mode is "
        "circular, but has 3 where there are 2",
        options={"mode": "circular", "cu_seqlens": [0, 5, 7]},
    ),
    Refusal(
        "fft_conv_packed: pre_gate must have the shape of x, (1, 2, 7), but has (1, 2, 6)",
        {"pre_gate": lambda g: g[..., 1:]},
    ),
    Refusal(
        "fft_conv_packed: skip must have shape (2,), one for each channel of x, but has (1,)",
        {"skip": lambda s: s[:1]},
    ),
)


@st.composite
def random(draw: st.DrawFn) -> Sample:
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    bounds = [sum(lengths[:n]) for n in range(len(lengths) + 1)]
    mode = draw(st.sampled_from(["causal", "bidirectional", "circular"]))
    return sample(
        "random",
        bounds,
        draw(st.integers(1, min(lengths) if mode == "circular" else 100)),
        mode,
        channels=draw(st.integers(1, 3)),
        per_sequence=draw(st.booleans()),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        extras=tuple(name for name in ALL if draw(st.booleans())),
        strided=draw(st.booleans()),
    )


class TestContract(contract.Contract):
    op = Op(
        function=fft_conv_packed,
        reference=reference,
        samples=SAMPLES,
        refusals=REFUSALS,
        random=random(),
        groups=(("x",), ("filter", "skip"), ("pre_gate",), ("post_gate",)),
        grown=lambda sizes: {"D": sizes["D"] + 2},
        weights=("filter", "skip"),
        exact=reference,
        of_squares=reference,
        capabilities=(),  # no kernels of its own
    )
    test_refuses_nested_tensors = None  # no dispatcher op of its own


@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("mode", ["causal", "bidirectional", "circular"])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64, list], ids=str)
def test_each_sequence_has_the_bits_it_has_alone(kind: Any, mode: str, layout: str) -> None:
    bounds = [0, 300, 300, 1033, 1034, 2000]
    cu_seqlens = bounds if kind is list else torch.tensor(bounds, dtype=kind)
    axis = 2 if layout == "bdl" else 1
    x, pre, post = torch.randn(3, 1, *((4, 2000) if layout == "bdl" else (2000, 4))).unbind()
    skip = torch.randn(4)
    lengths = [end - first for first, end in itertools.pairwise(bounds)]
    filters = [torch.randn(4, max(n, 1)) for n in lengths]
    options = {"skip": skip, "mode": mode, "layout": layout}
    y = fft_conv_packed(x, filters, cu_seqlens, pre_gate=pre, post_gate=post, **options)
    for n, length in enumerate(lengths):
        alone = [s.narrow(axis, bounds[n], length) for s in (x, pre, post)]
        one = fft_conv(alone[0], filters[n], pre_gate=alone[1], post_gate=alone[2], **options)
        assert torch.equal(y.narrow(axis, bounds[n], length), one)


def test_shared_filters_have_the_taps_that_reach() -> None:
    x, filter = torch.randn(1, 2, 20), torch.randn(2, 30)
    y = fft_conv_packed(x, filter, [0, 3, 20])
    assert torch.equal(y[..., :3], fft_conv(x[..., :3], filter[:, :3]))
    y = fft_conv_packed(x, filter, [0, 3, 20], mode="bidirectional")
    assert torch.equal(y[..., :3], fft_conv(x[..., :3], filter[:, 12:17], mode="bidirectional"))
    assert torch.equal(y[..., 3:], fft_conv(x[..., 3:], filter, mode="bidirectional"))


def test_sequences_do_not_see_each_other() -> None:
    x = torch.randn(1, 3, 1000)
    filter = torch.randn(3, 1000)
    y = fft_conv_packed(x, filter, [0, 400, 1000])
    other = x.clone()
    other[..., :400] = float("nan")
    assert torch.equal(fft_conv_packed(other, filter, [0, 400, 1000])[..., 400:], y[..., 400:])


def test_refuses_another_device() -> None:
    with pytest.raises(ValueError, match=r"on the CPU or the device of x, cpu, but is on meta"):
        fft_conv_packed(torch.randn(1, 2, 7), torch.randn(2, 3), torch.tensor([0, 7], device="meta"))


def test_reads_in_place() -> None:
    """Strided sequences and filters: what is saved for backward is what was given."""
    x = torch.randn(1, 50, 4).mT.requires_grad_()
    filter = torch.randn(2, 30, 4).mT.requires_grad_()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fft_conv_packed(x, filter, [0, 20, 50])
    owned = {t.untyped_storage().data_ptr() for t in (x, filter)}
    assert len(saved) == 4
    assert {t.untyped_storage().data_ptr() for t in saved} == owned
