"""Layers and models: parameters and their initialisation; the mathematics is in the ops.

Parameters have the names of the published PONITA, so that its checkpoints load.
"""

from .basis import FilterBasis
from .conv import FiberBundleConv, PointCloudConv
from .convnext import ConvNext
from .ponita import Ponita

__all__ = ["ConvNext", "FiberBundleConv", "FilterBasis", "PointCloudConv", "Ponita"]
