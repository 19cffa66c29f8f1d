"""spectral_conv against the PyTorch that people write, and the best PyTorch that can be written."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fft import irfft, rfft

import equiconv
from equiconv.reference import spectral_conv as reference

from .bench_fft_conv import Gradients, at_least_float32
from .harness import Case, Inputs, Op, random_inputs


def inputs(case: Case) -> Inputs:
    """x, a complex half spectrum, the gates and skip, scaled so that y is about as large as x."""
    shape: tuple[int, ...] = (case.channels, case.length // 2 + 1)
    if case.filter == "per-sample":
        shape = (case.batch, *shape)
    tensors = random_inputs(case, spectrum=(*shape, 2))
    tensors["spectrum"] = torch.view_as_complex(at_least_float32(tensors["spectrum"]) / math.sqrt(2))
    return tensors


def options(case: Case) -> dict[str, str]:
    return {"layout": case.layout}


def eager(
    x: Tensor,
    spectrum: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    layout: str = "bdl",
) -> Tensor:
    """The expression in the code of models that make their filters as spectra."""
    u = x if pre_gate is None else pre_gate * x
    if layout == "bld":
        u = u.transpose(1, 2)
    n = u.shape[-1]
    y: Tensor = irfft(rfft(at_least_float32(u), n=n) * spectrum, n=n).to(x.dtype)
    if skip is not None:
        y = y + u * skip[:, None]
    if layout == "bld":
        y = y.transpose(1, 2)
    return y if post_gate is None else y * post_gate


class Handwritten(torch.autograd.Function):
    """The best torch.fft can do. Everything is (B, D, L) in here.

    A half spectrum stands for a whole one: bins with a mirror image count twice in the adjoint of irfft,
    which is therefore rfft times weights / n, and no full complex buffer is needed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        spectrum: Tensor,
        pre_gate: Tensor | None,
        post_gate: Tensor | None,
        skip: Tensor | None,
    ) -> Tensor:
        n = x.shape[-1]
        u = at_least_float32(x if pre_gate is None else x * pre_gate)
        u_f = rfft(u)
        training = any(ctx.needs_input_grad)
        product = u_f * spectrum if training else u_f.mul_(spectrum)
        c: Tensor = irfft(product, n=n)
        if skip is not None:
            c.addcmul_(u, skip[:, None].to(c.dtype))
        if training:
            kept = None if post_gate is None else c
            ctx.save_for_backward(x, spectrum, pre_gate, post_gate, skip, u_f.conj_physical_(), kept)
        y = c if post_gate is None else c * post_gate
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Gradients:
        x, spectrum, pre_gate, post_gate, skip, conj_u_f, c = ctx.saved_tensors
        n = x.shape[-1]
        g = at_least_float32(grad_out if post_gate is None else grad_out * post_gate)
        g_f = rfft(g)
        grad_u = irfft(g_f * spectrum.conj(), n=n)
        grad_spectrum = g_f.mul_(conj_u_f)
        if spectrum.dim() == 2:
            grad_spectrum = grad_spectrum.sum(0)
        if not spectrum.is_complex():
            grad_spectrum = grad_spectrum.real
        grad_spectrum = grad_spectrum * mirror_weights(n, g)
        grad_skip = None
        if skip is not None:
            u = x if pre_gate is None else x * pre_gate
            grad_u.addcmul_(g, skip[:, None].to(g.dtype))
            grad_skip = (g * u).sum((0, 2)).to(skip.dtype)
        return (
            (grad_u if pre_gate is None else grad_u * pre_gate).to(x.dtype),
            grad_spectrum.to(spectrum.dtype),
            None if pre_gate is None else (grad_u * x).to(x.dtype),
            None if post_gate is None else (grad_out * c).to(x.dtype),
            grad_skip,
        )


def mirror_weights(n: int, like: Tensor) -> Tensor:
    """1/n for the bins that are their own mirror image, 2/n for the others."""
    weights = torch.full((n // 2 + 1,), 2 / n, dtype=like.dtype, device=like.device)
    weights[0] = 1 / n
    if n % 2 == 0:
        weights[-1] = 1 / n
    return weights


def handwritten(
    x: Tensor,
    spectrum: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    layout: str = "bdl",
) -> Tensor:
    if layout == "bdl":
        return apply(x, spectrum, pre_gate, post_gate, skip)
    pre_gate, post_gate = (gate if gate is None else gate.transpose(1, 2) for gate in (pre_gate, post_gate))
    return apply(x.transpose(1, 2), spectrum, pre_gate, post_gate, skip).transpose(1, 2)


def apply(*arguments: object) -> Tensor:
    out: Tensor = Handwritten.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


SPECTRAL_CONV = Op(
    name="spectral_conv",
    inputs=inputs,
    options=options,
    contestants={"equiconv": equiconv.spectral_conv, "eager": eager, "handwritten": handwritten},
    reference=reference.spectral_conv,
)
