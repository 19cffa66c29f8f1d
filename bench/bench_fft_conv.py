"""fft_conv against the PyTorch that people write, and the best PyTorch that can be written."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fft import irfft, rfft

import equiconv
from equiconv.reference import fft_conv as reference

from .harness import Case, Inputs, Op, random_inputs

Gradients = tuple[Tensor | None, ...]


def taps(case: Case) -> int:
    return 2 * case.length - 1 if case.mode == "bidirectional" else case.length


def inputs(case: Case) -> Inputs:
    """x, filter, the gates and skip, scaled so that y is about as large as x."""
    shape: tuple[int, ...] = (case.channels, taps(case))
    if case.filter == "per-sample":
        shape = (case.batch, *shape)
    tensors = random_inputs(case, filter=shape)
    tensors["filter"] /= math.sqrt(case.length)
    return tensors


def options(case: Case) -> dict[str, str]:
    return {"mode": case.mode, "layout": case.layout}


def transform_length(mode: str, length: int) -> int:
    return length if mode == "circular" else 2 * length


def first_position(mode: str, taps: int) -> int:
    """Where in the full convolution y begins."""
    return (taps - 1) // 2 if mode == "bidirectional" else 0


def eager(
    x: Tensor,
    filter: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    """The expression in the code of long-convolution models."""
    u = x if pre_gate is None else pre_gate * x
    if layout == "bld":
        u = u.transpose(1, 2)
    length = u.shape[-1]
    n, first = transform_length(mode, length), first_position(mode, filter.shape[-1])
    # torch.fft has no half precision on the CPU; there, models convert.
    u_f = rfft(at_least_float32(u), n=n)
    k_f = rfft(at_least_float32(filter), n=n)
    y: Tensor = irfft(u_f * k_f, n=n)[..., first : first + length].to(x.dtype)
    if skip is not None:
        y = y + u * skip[:, None]
    if layout == "bld":
        y = y.transpose(1, 2)
    return y if post_gate is None else y * post_gate


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def padded(x: Tensor, gate: Tensor | None, n: int, first: int = 0) -> Tensor:
    """gate * x with zeros around it, n long, written in one go instead of multiplied and then padded."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    last = first + x.shape[-1]
    out = torch.empty(*x.shape[:-1], n, dtype=dtype, device=x.device)
    out[..., :first].zero_()
    out[..., last:].zero_()
    if gate is not None and x.is_contiguous():
        torch.mul(x, gate, out=out[..., first:last])
    else:  # a product and a transposition at once would be slower than one after the other
        out[..., first:last].copy_(x if gate is None else x * gate)
    return out


class Handwritten(torch.autograd.Function):
    """The best torch.fft can do: derivatives by hand, transforms kept, no buffer filled with zeros twice.

    The two transforms are kept as their conjugates, which is how the backward pass needs them.
    Everything is (B, D, L) in here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        filter: Tensor,
        pre_gate: Tensor | None,
        post_gate: Tensor | None,
        skip: Tensor | None,
        mode: str,
    ) -> Tensor:
        length = x.shape[-1]
        n, first = transform_length(mode, length), first_position(mode, filter.shape[-1])
        u = padded(x, pre_gate, n)
        u_f, k_f = rfft(u), rfft(at_least_float32(filter), n=n)
        training = any(ctx.needs_input_grad)
        product = u_f * k_f if training else u_f.mul_(k_f)
        c: Tensor = irfft(product, n=n)[..., first : first + length]
        if skip is not None:
            c.addcmul_(u[..., :length], skip[:, None].to(c.dtype))
        ctx.n, ctx.first, ctx.taps = n, first, filter.shape[-1]
        ctx.filter_dtype = filter.dtype
        if training:
            u_f.conj_physical_()
            k_f.conj_physical_()
            kept = None if post_gate is None else c
            ctx.save_for_backward(x, pre_gate, post_gate, skip, u_f, k_f, kept)
        y = c if post_gate is None else c * post_gate
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Gradients:
        x, pre_gate, post_gate, skip, conj_u_f, conj_k_f, c = ctx.saved_tensors
        n, first, length = ctx.n, ctx.first, x.shape[-1]
        g = padded(grad_out, post_gate, n, first)
        g_f = rfft(g)
        g = g[..., first : first + length]
        grad_u = irfft(g_f * conj_k_f, n=n)[..., :length]
        grad_k_f = g_f.mul_(conj_u_f)
        if conj_k_f.dim() == 2:
            grad_k_f = grad_k_f.sum(0)
        grad_filter = irfft(grad_k_f, n=n)[..., : ctx.taps].to(ctx.filter_dtype)
        grad_skip = None
        if skip is not None:
            u = x if pre_gate is None else x * pre_gate
            grad_u.addcmul_(g, skip[:, None].to(g.dtype))
            grad_skip = (g * u).sum((0, 2)).to(skip.dtype)
        return (
            (grad_u if pre_gate is None else grad_u * pre_gate).to(x.dtype),
            grad_filter,
            None if pre_gate is None else (grad_u * x).to(x.dtype),
            None if post_gate is None else (grad_out * c).to(x.dtype),
            grad_skip,
            None,
        )


def handwritten(
    x: Tensor,
    filter: Tensor,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    skip: Tensor | None = None,
    mode: str = "causal",
    layout: str = "bdl",
) -> Tensor:
    if layout == "bdl":
        return apply(x, filter, pre_gate, post_gate, skip, mode)
    pre_gate, post_gate = (gate if gate is None else gate.transpose(1, 2) for gate in (pre_gate, post_gate))
    return apply(x.transpose(1, 2), filter, pre_gate, post_gate, skip, mode).transpose(1, 2)


def apply(*arguments: object) -> Tensor:
    out: Tensor = Handwritten.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


FFT_CONV = Op(
    name="fft_conv",
    inputs=inputs,
    options=options,
    contestants={"equiconv": equiconv.fft_conv, "eager": eager, "handwritten": handwritten},
    reference=reference.fft_conv,
)
