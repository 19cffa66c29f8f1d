"""Atomisation energies of the molecules of the G2/97 set, measured ones, from their geometries.

Raghavachari, Redfern and Pople, J. Chem. Phys. 106, 1063 (1997); the set comes with the package ase.
"""
