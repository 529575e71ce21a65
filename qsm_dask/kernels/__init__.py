"""Pure functions on the NumPy arrays of one scan; they import NumPy, SciPy, Numba and `units` only."""
