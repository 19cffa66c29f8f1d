"""Layers and models: parameters and their initialisation; the mathematics is in the ops.

Those of PONITA have the names of the published model's parameters, so that its checkpoints load.
"""

from .basis import FilterBasis
from .conv import FiberBundleConv, PointCloudConv
from .convnext import ConvNext
from .filter import ExplicitFilter, ImplicitFilter
from .gated_linear_unit import GatedLinearUnit
from .hyena import HyenaDecoder, HyenaOperator
from .long_conv import LongConv
from .long_conv_decoder import LongConvDecoder
from .orchid import Orchid, OrchidBlock
from .ponita import Ponita
from .short_conv import ShortConv

__all__ = [
    "ConvNext",
    "ExplicitFilter",
    "FiberBundleConv",
    "FilterBasis",
    "GatedLinearUnit",
    "HyenaDecoder",
    "HyenaOperator",
    "ImplicitFilter",
    "LongConv",
    "LongConvDecoder",
    "Orchid",
    "OrchidBlock",
    "PointCloudConv",
    "Ponita",
    "ShortConv",
]
