"""What a case's results must be: those of the definition in plain PyTorch, in float64."""

from __future__ import annotations

import numpy as np
import torch

from equiconv.reference.fft_conv import fft_conv

from .cases import Case


def expected(case: Case) -> dict[str, np.ndarray]:
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in case.arguments().items()}
    grad_out = tensors.pop("grad_out")
    y = fft_conv(**tensors, mode=case.mode)
    gradients = torch.autograd.grad(y, list(tensors.values()), grad_out)
    results = {"y": y} | {f"grad_{name}": g for name, g in zip(tensors, gradients, strict=True)}
    return {name: value.detach().numpy() for name, value in results.items()}
