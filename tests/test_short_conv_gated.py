from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import contract
import hypothesis.strategies as st
import pytest
import torch
from contract import Op, Refusal, Sample
from cuda_on_cpu.short_conv import short_conv as on_emulator
from test_short_conv import FLOAT32, form_of, grown, sample
from torch import Tensor

from equiconv import short_conv, short_conv_gated
from equiconv.ops.short_conv import SHORT_MODES
from equiconv.reference import short_conv as reference

# ---- one result of the two, as the contract wants them -----------------------------------------------------


def joined(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """x0 and u in one tensor: the contract's ops have one result."""

    def call(**arguments: Any) -> Tensor:
        return torch.stack(function(**arguments))

    return call


def gated(name: str, batch: int, channels: int, *sizes: Any, layout: str = "bld", **kind: Any) -> Sample:
    made = sample(name, batch, 3 * channels, *sizes, layout=layout, **kind)
    return replace(made, tensors={{"x": "z"}.get(name, name): axes for name, axes in made.tensors.items()})


GATED = (
    gated("causal", 2, 2, 5, 3),
    gated("centered", 2, 2, 4, 4, "centered", layout="bdl"),
    gated("strided", 2, 2, 4, 3, "circular_centered", strided=True),
    gated("circular", 2, 2, 3, 5, "circular", bias=False),
    gated("one-of-all", 1, 1, 1, 1),
    gated("wider-than-long", 2, 1, 2, 7, layout="bdl", bias=False),
    gated("no-batch", 0, 2, 5, 3),
    gated("no-channels", 2, 0, 5, 3, layout="bdl"),
    gated("no-positions", 2, 2, 0, 3),
    gated("columns", 2, 32, 90, 4),
    gated("columns-odd", 3, 19, 47, 5, "centered"),
    gated("columns-wide", 1, 600, 21, 3, "circular", bias=False),
    gated("columns-long", 1, 16, 700, 16, "circular_centered"),
    gated("rows", 2, 3, 1030, 4, layout="bdl"),
    gated("rows-circular", 2, 17, 130, 7, "circular_centered", layout="bdl", bias=False),
    gated("strided-long", 1, 5, 300, 6, "centered", strided=True),
    gated("float32-weights", 2, 8, 60, 3, float32=FLOAT32),
)


@st.composite
def random_gated(draw: st.DrawFn) -> Sample:
    return gated(
        "random",
        draw(st.integers(1, 3)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 12) | st.integers(1, 300)),
        draw(st.integers(1, 16)),
        draw(st.sampled_from(SHORT_MODES)),
        layout=draw(st.sampled_from(["bdl", "bld"])),
        bias=draw(st.booleans()),
        strided=draw(st.booleans()),
        float32=frozenset(name for name in FLOAT32 if draw(st.booleans())),
    )


def dispatched_gated(
    tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    arguments = (tensors["z"], tensors["filter"], tensors.get("bias"))
    form = form_of(options, tensors["filter"])
    grads = [
        torch.randn_like(x, requires_grad=True)
        for x in tensors["z"].chunk(3, 1 if options["layout"] == "bdl" else 2)[:2]
    ]
    yield torch.ops.equiconv.short_conv_gated.default, (*arguments, *form)
    backward = torch.ops.equiconv.short_conv_gated_backward.default
    yield backward, (*grads, *arguments, *form, True, True, True)
    yield backward, (*grads, *arguments, *form, False, True, False)


def gated_squares(
    z: Tensor,
    filter: Tensor,
    *,
    bias: Tensor | None = None,
    at: Mapping[str, Tensor],
    layout: str,
    **form: Any,
) -> Tensor:
    axis = 1 if layout == "bdl" else 2
    _, x1, v = reference.short_conv(at["z"], at["filter"], bias=at.get("bias"), layout=layout, **form).chunk(
        3, axis
    )
    s0, s1, s2 = reference.short_conv(z, filter, bias=bias, layout=layout, **form).chunk(3, axis)
    return torch.stack([s0, (x1 * v).square() + v.square() * s1 + x1.square() * s2])


class TestContract(contract.Contract):
    op = Op(
        function=joined(short_conv_gated),
        reference=joined(reference.short_conv_gated),
        exact=joined(reference.short_conv_gated),
        samples=GATED,
        random=random_gated(),
        groups=(),
        grown=grown,
        weights=("filter", "bias"),
        of_squares=gated_squares,
        nonlinear=True,
        dispatched=dispatched_gated,
        on_emulator=on_emulator,
        refusals=(
            Refusal(
                "short_conv_gated: mode must be causal, centered, circular or circular_centered, but is same",
                options={"mode": "same"},
            ),
            Refusal("short_conv_gated: z must be (B, L, 3D), but has shape (5, 6)", {"z": lambda z: z[0]}),
            Refusal(
                "short_conv_gated: z must be (B, 3D, L), but has shape (5, 6)",
                {"z": lambda z: z[0]},
                options={"layout": "bdl"},
            ),
            Refusal(
                "short_conv_gated: z must have three times as many channels as x0, but has 5",
                {"z": lambda z: z[..., 1:]},
            ),
            Refusal(
                "short_conv_gated: z must be float32, float64, bfloat16 or float16, but is complex64",
                {"z": lambda z: z.to(torch.complex64)},
            ),
            Refusal(
                "short_conv_gated: filter must have the channels of z, 6, but has 2",
                {"filter": lambda k: k[:2]},
            ),
            Refusal(
                "short_conv_gated: filter must have the dtype of z, float32, but has float64",
                {"filter": lambda k: k.double()},
            ),
            Refusal(
                "short_conv_gated: bias must have shape (6,), one for each channel of z, but has (1,)",
                {"bias": lambda b: b[:1]},
            ),
        ),
    )


def test_gated_differentiates_one_result_alone(device: str) -> None:
    z, k = (
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in ((2, 5, 6), (6, 3))
    )
    for which in (0, 1):
        ours = torch.autograd.grad(short_conv_gated(z, k)[which].square().sum(), (z, k), create_graph=True)
        theirs = torch.autograd.grad(reference.short_conv_gated(z, k)[which].square().sum(), (z, k))
        torch.testing.assert_close(ours, theirs)


def test_gated_is_its_parts(device: str) -> None:
    z, k, b = (torch.randn(s, device=device) for s in ((2, 33, 24), (24, 4), (24,)))
    s0, s1, s2 = short_conv(z, k, bias=b, layout="bld").chunk(3, -1)
    contract.assert_same_bits(short_conv_gated(z, k, bias=b), [s0, s1 * s2])


def test_refuses_another_gradient(device: str) -> None:
    z, k = torch.empty(2, 4, 6, device=device), torch.empty(6, 3, device=device)
    g = torch.empty(2, 4, 2, device=device)
    rest = (z, k, None, False, 0, 1, True, True, False)
    with pytest.raises(
        ValueError, match=r"grad_u must have the shape of u, \(2, 4, 2\), but has \(2, 4, 6\)$"
    ):
        torch.ops.equiconv.short_conv_gated_backward(g, z, *rest)
    with pytest.raises(ValueError, match=r"grad_x0 must have the dtype of z, float32, but has float64$"):
        torch.ops.equiconv.short_conv_gated_backward(g.double(), g, *rest)
