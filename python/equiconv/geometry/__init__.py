"""Grids of orientations, the cut-off, polynomial features, and lifting to and from orientations."""

from .cutoff import polynomial_cutoff
from .edge_cloud import EdgeCloud, edge_cloud
from .grids import (
    SOLIDS,
    antipodes,
    circle,
    fibonacci_sphere,
    random_rotations,
    regular_solid,
    repulsion_sphere,
    rotation_group,
)
from .lifting import lift, project
from .polynomial import fold_repeats, monomials, ordered_monomials, polynomial_features

__all__ = [
    "SOLIDS",
    "EdgeCloud",
    "antipodes",
    "circle",
    "edge_cloud",
    "fibonacci_sphere",
    "fold_repeats",
    "lift",
    "monomials",
    "ordered_monomials",
    "polynomial_cutoff",
    "polynomial_features",
    "project",
    "random_rotations",
    "regular_solid",
    "repulsion_sphere",
    "rotation_group",
]
