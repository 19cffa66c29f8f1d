"""A force field for a copper cluster, learned from energies and forces of its dynamics, and run on its own.

The forces are those of effective medium theory (Jacobsen, Stoltze and Nørskov, Surf. Sci. 366, 394, 1996), a
calculator of the package ase.
"""
