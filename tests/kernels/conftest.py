"""Settings of the kernels' tests."""

from hypothesis import settings

# The first example of a test may wait for Numba to compile.
settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")
