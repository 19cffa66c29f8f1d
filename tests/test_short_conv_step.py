"""One step at a time, and the state it goes on from."""

from __future__ import annotations

import contextlib

import contract
import pytest
import torch
from cuda_on_cpu.device import Device
from cuda_on_cpu.short_conv import short_conv as on_emulator
from cuda_on_cpu.short_conv import short_conv_step as step_on_emulator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from equiconv import short_conv, short_conv_state, short_conv_step
from equiconv.ops.short_conv import ACTIVATIONS


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
@pytest.mark.parametrize(("taps", "prompt"), [(1, 0), (2, 5), (4, 0), (4, 2), (5, 11), (16, 3)])
def test_steps_are_the_whole(
    taps: int, prompt: int, activation: str | None, dtype: torch.dtype, device: str
) -> None:
    """Bit for bit, from an empty prompt, a short one and a long one."""
    x, k, b = (torch.randn(s, device=device).to(dtype) for s in ((3, 21, 14), (21, taps), (21,)))
    whole = short_conv(x, k, bias=b, activation=activation)
    state = short_conv_state(x[..., :prompt], taps)
    contract.assert_same_bits([short_conv_state(x.mT[:, :prompt], taps, layout="bld")], [state])
    for t in range(prompt, 14):
        y, state = short_conv_step(x[..., t], state, k, bias=b, activation=activation)
        assert y.is_contiguous()
        assert state.is_contiguous()
        contract.assert_same_bits([y], [whole[..., t]])
    contract.assert_same_bits([state], [short_conv_state(x, taps)])


@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
def test_derivatives_of_a_step(activation: str | None, device: str) -> None:
    x, state, k, b = (
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True)
        for s in ((2, 3), (2, 3, 3), (3, 4), (3,))
    )

    def f(x: Tensor, state: Tensor, k: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return short_conv_step(x, state, k, bias=b, activation=activation)

    assert gradcheck(f, (x, state, k, b), check_forward_ad=True)
    assert gradgradcheck(f, (x, state, k, b))
    with torch.no_grad():
        plain = f(x, state, k, b)
    contract.assert_same_bits(f(x, state, k, b), plain)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    contract.assert_same_bits(compiled(x, state, k, b), plain)
    number = ACTIVATIONS.get(activation or "", 0)
    torch.library.opcheck(torch.ops.equiconv.short_conv_step.default, (x, state, k, b, number))


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
def test_step_by_the_cuda_kernel(activation: str | None, dtype: torch.dtype, emulator: Device) -> None:
    """The whole by the CUDA kernels too: bit for bit."""
    x, k, b = (torch.randn(s).to(dtype) for s in ((2, 21, 9), (21, 4), (21,)))
    options = {"mode": "causal", "layout": "bdl", "activation": activation}
    emulator.report()
    whole = on_emulator(emulator, {"x": x, "filter": k, "bias": b}, options, torch.zeros_like(x))[0]
    state = short_conv_state(x[..., :2], 4)
    for t in range(2, 9):
        y, state = step_on_emulator(emulator, x[..., t], state, k, bias=b, activation=activation)
        contract.assert_same_bits([y], [whole[..., t]])
    contract.assert_same_bits([state], [short_conv_state(x, 4)])
    assert emulator.report() == ""


def test_steps_of_strided_tensors(device: str) -> None:
    x, state, k = torch.randn(5, 2).T, torch.randn(3, 5, 2).permute(2, 1, 0), torch.randn(4, 5).T
    x, state, k = x.to(device), state.to(device), k.to(device)
    expected = short_conv_step(x.contiguous(), state.contiguous(), k.contiguous())
    contract.assert_same_bits(short_conv_step(x, state, k), expected)
    empty = short_conv_step(x[:0], state[:0], k)
    assert [t.shape for t in empty] == [(0, 5), (0, 5, 3)]


def test_step_under_autocast(device: str) -> None:
    x, state, k = (torch.randn(s, device=device) for s in ((2, 5), (2, 5, 3), (5, 4)))
    with torch.autocast(device, torch.bfloat16):
        y, after = short_conv_step(x, state, k)
    contract.assert_same_bits([y, after], short_conv_step(x.bfloat16(), state.bfloat16(), k))


@pytest.mark.parametrize("traced", [False, True])
def test_step_refuses(traced: bool, device: str) -> None:
    with FakeTensorMode() if traced else contextlib.nullcontext():
        x, state, k = (torch.empty(s, device=device) for s in ((2, 5), (2, 5, 3), (5, 4)))
        for sentence, arguments in (
            ("x must be (B, D), but has shape (5,)", (x[0], state, k)),
            (
                "state must have shape (2, 5, 3), (B, D, W-1), but has (2, 5, 4)",
                (x, state.new_empty(2, 5, 4), k),
            ),
            ("state must have the dtype of x, float32, but has float64", (x, state.double(), k)),
            ("filter must have 1 to 16 taps, but has 17", (x, state, k.new_empty(5, 17))),
            ("filter must have the channels of x, 5, but has 4", (x, state, k[:4])),
            ("x must be float32, float64, bfloat16 or float16, but is int64", (x.long(), state, k)),
        ):
            with pytest.raises(ValueError, match=r"^short_conv_step: ") as error:
                short_conv_step(*arguments)
            assert str(error.value) == f"short_conv_step: {sentence}"
        with pytest.raises(ValueError, match="activation must be silu or gelu, but is tanh"):
            short_conv_step(x, state, k, activation="tanh")
    with pytest.raises(ValueError, match=r"^short_conv_state: width must be 1 to 16, but is 17$"):
        short_conv_state(torch.empty(2, 3, 4), 17)
