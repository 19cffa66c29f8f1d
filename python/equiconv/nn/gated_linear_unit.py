"""The gated linear unit: one projection, whose halves meet in one pass over memory."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.check import number_of
from ..ops.gate import NUMBERS, gate


class GatedLinearUnit(nn.Module):
    """y = (W₁x + b₁) ⊙ act(W₂x + b₂), with both biases added where the halves are multiplied.

    Args:
        in_features, out_features: of x and y.
        activation: "sigmoid" (GLU), "silu" (SwiGLU), "gelu" (GEGLU), "relu" (ReGLU), "identity" (bilinear) or
            "tanh".
        bias: whether there is one.

    `projection` is one Linear with 2 out_features rows, values first and gates second, as
    :func:`torch.nn.functional.glu` takes them.

    Shazeer, GLU Variants Improve Transformer (2020, arXiv:2002.05202).
    """

    def __init__(
        self, in_features: int, out_features: int, activation: str = "sigmoid", bias: bool = True
    ) -> None:
        super().__init__()
        number_of("GatedLinearUnit", "activation", activation, NUMBERS)
        self.activation = activation
        self.projection = nn.Linear(in_features, 2 * out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in_features). Returns (…, out_features)."""
        projected = nn.functional.linear(x, self.projection.weight)
        bias, gate_bias = (None, None) if self.projection.bias is None else self.projection.bias.chunk(2)
        return gate(projected, bias=bias, gate_bias=gate_bias, activation=self.activation)

    def extra_repr(self) -> str:
        return f"activation={self.activation}"
