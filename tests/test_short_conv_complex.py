"""Complex sequences: spectra along frequency."""

from __future__ import annotations

import contract
import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.short_conv import short_conv as on_emulator
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from equiconv import short_conv
from equiconv.ops.short_conv import SHORT_MODES
from equiconv.reference import short_conv as reference


@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("mode", SHORT_MODES)
@pytest.mark.parametrize("channels", [1, 6, 40])
def test_complex_is_its_parts(mode: str, layout: str, channels: int, device: str) -> None:
    """Bit for bit; and so are strided spectra, and views of conjugates."""
    k, b = torch.randn(channels, 5, device=device), torch.randn(channels, device=device)
    x = torch.randn(2, channels, 37, dtype=torch.complex64, device=device)
    x = x if layout == "bdl" else x.mT.contiguous()
    form = {"bias": b, "mode": mode, "layout": layout}
    y = short_conv(x, k, **form)
    parts = [short_conv(part.contiguous(), k, **form) for part in (x.real, x.imag)]
    assert y.dtype == torch.complex64
    assert y.is_contiguous()
    contract.assert_same_bits([y.real, y.imag], parts)
    strided = torch.stack([x, x], -1)[..., 0]
    contract.assert_same_bits([short_conv(strided, k, **form)], [y])
    transposed = x.mT.contiguous().mT
    contract.assert_same_bits([short_conv(transposed, k, **form)], [y])
    conjugate = short_conv(x.conj(), k, **form)
    contract.assert_same_bits([conjugate], [short_conv(x.conj().resolve_conj(), k, **form)])


@pytest.mark.parametrize("layout", ["bdl", "bld"])
def test_complex_derivatives(layout: str, device: str) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.complex128, device=device, requires_grad=True)
    channels = 3 if layout == "bdl" else 4
    k, b = (
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True)
        for s in ((channels, 3), (channels,))
    )

    def f(x: Tensor, k: Tensor, b: Tensor) -> Tensor:
        return short_conv(x, k, bias=b, mode="circular_centered", layout=layout)

    assert gradcheck(f, (x, k, b), check_forward_ad=True)
    assert gradgradcheck(f, (x, k, b), check_fwd_over_rev=True)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    contract.assert_same_bits([compiled(x, k, b)], [f(x, k, b)])
    stacked = torch.stack([x, 2 * x])
    expected = torch.stack([f(x, k, b), f(2 * x, k, b)])
    torch.testing.assert_close(torch.vmap(f, in_dims=(0, None, None))(stacked, k, b), expected)


@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("mode", SHORT_MODES)
def test_complex_by_the_cuda_kernels(mode: str, layout: str, emulator: Device) -> None:
    x = torch.randn(2, 5, 70, dtype=torch.complex64)
    x = x if layout == "bdl" else x.mT.contiguous()
    tensors = {"x": x, "filter": torch.randn(5, 4), "bias": torch.randn(5)}
    options, grad_out = {"mode": mode, "layout": layout}, torch.randn_like(x)
    emulator.report()
    ours = on_emulator(emulator, tensors, options, grad_out)
    assert emulator.report() == ""
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    y = reference.short_conv(**leaves, **options)  # type: ignore[arg-type]
    theirs = [y.detach(), *torch.autograd.grad(y, tuple(leaves.values()), grad_out)]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
