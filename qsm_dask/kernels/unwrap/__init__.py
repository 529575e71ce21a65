"""Unwrapping: exact along reliable edges, or up to a harmonic function by a Poisson equation."""
