"""The dipole kernel against its formula, and the forward model against spheres and cylinders."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from qsm_dask.kernels.dipole import dipole_spectrum, forward_field
from tests.kernels.analytic import AXIAL, OBLIQUE, convolve, dipole_field, full_dipole, positions, sphere_fraction

shapes = st.tuples(*[st.integers(4, 11)] * 3)
voxel_sizes = st.tuples(*[st.floats(0.5, 3.0)] * 3)
directions = (
    st.tuples(*[st.floats(-1, 1)] * 3)
    .filter(lambda b: np.linalg.norm(b) > 0.1)
    .map(lambda b: tuple(np.array(b) / np.linalg.norm(b)))
)


@given(shapes, voxel_sizes, directions)
def test_half_spectrum_is_the_symmetrised_kernel(shape, voxel_size, b0_dir):
    full = full_dipole(shape, voxel_size, b0_dir)
    half = dipole_spectrum(shape, voxel_size, b0_dir)
    assert half.dtype == np.float32
    assert half[0, 0, 0] == 0
    np.testing.assert_allclose(half, full[..., : shape[2] // 2 + 1], atol=1e-6)


@given(shapes, voxel_sizes, directions, st.integers(0, 2**31))
def test_real_transforms_equal_complex_ones(shape, voxel_size, b0_dir, seed):
    volume = np.random.default_rng(seed).standard_normal(shape)
    half = scipy.fft.irfftn(scipy.fft.rfftn(volume) * dipole_spectrum(shape, voxel_size, b0_dir), s=shape)
    np.testing.assert_allclose(half, convolve(volume, full_dipole(shape, voxel_size, b0_dir)), atol=1e-5)


@pytest.mark.parametrize(("direction", "value"), [((1, 0, 0), 1 / 3), ((0, 1, 0), 1 / 3), ((0, 0, 1), -2 / 3)])
def test_kernel_along_the_axes(direction, value):
    spectrum = dipole_spectrum((8, 8, 8), (1, 1, 1), AXIAL)
    assert spectrum[direction] == pytest.approx(value)


@given(shapes, voxel_sizes, directions, st.integers(0, 2**31), st.floats(-3, 3))
@settings(max_examples=25)
def test_forward_model_is_linear_and_its_own_adjoint(shape, voxel_size, b0_dir, seed, factor):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, *shape)).astype(np.float32)
    field, other = (forward_field(v, voxel_size, b0_dir) for v in (first, second))
    both = forward_field(first + np.float32(factor) * second, voxel_size, b0_dir)
    np.testing.assert_allclose(both, field + np.float32(factor) * other, atol=2e-5)
    assert np.vdot(field, second) == pytest.approx(np.vdot(first, other), abs=1e-4 * first.size**0.5 * 3)


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize(
    ("shape", "voxel_size"), [((64, 64, 64), (1, 1, 1)), ((63, 75, 41), (1.0, 0.8, 1.6))], ids=["cubic", "anisotropic"]
)
def test_field_of_a_sphere(shape, voxel_size, b0_dir):
    radius, chi = 9.0, 1.0
    centre = np.array(shape) / 2 - 0.3
    source = chi * sphere_fraction(shape, voxel_size, radius, centre)
    field = forward_field(source.astype(np.float32), voxel_size, b0_dir)
    truth, r = dipole_field(shape, voxel_size, b0_dir, centre, radius, chi)
    edge = 2 * max(voxel_size)
    outside, inside = r > radius + edge, r < radius - edge
    # The largest field outside is 2/3 chi. Voxels cannot draw the sphere's surface, hence the ripple.
    assert np.abs(field - truth)[outside].max() < 0.025 * chi
    assert np.sqrt(np.mean((field - truth)[outside] ** 2)) < 0.0015 * chi
    assert np.abs(field[inside].mean()) < 0.002 * chi
    assert np.sqrt(np.mean(field[inside] ** 2)) < 0.015 * chi


@pytest.mark.parametrize("tilt", [90.0, 54.7356, 30.0])
def test_field_of_an_infinite_cylinder(tilt):
    shape, radius = (144, 144, 8), 8.0
    theta = np.deg2rad(tilt)
    b0_dir = (np.sin(theta), 0.0, np.cos(theta))
    x, y, _ = positions(shape, (1, 1, 1))
    r, phi = np.hypot(x, y) + np.zeros(shape), np.arctan2(y, x)
    # Without padding the grid repeats along the axis, which makes the cylinder infinite.
    source = np.mean(
        [np.hypot(x + a, y + b) < radius for a in np.linspace(-0.4, 0.4, 5) for b in np.linspace(-0.4, 0.4, 5)], axis=0
    )
    field = forward_field((source + np.zeros(shape)).astype(np.float32), (1, 1, 1), b0_dir, padding=0.0)
    with np.errstate(divide="ignore"):
        truth = np.sin(theta) ** 2 / 2 * (radius / r) ** 2 * np.cos(2 * phi)
    near = (r > radius + 2) & (r < 40)
    assert np.abs(field - truth)[near].max() < 0.02
    inside = r < radius - 2
    assert field[inside].mean() == pytest.approx((3 * np.cos(theta) ** 2 - 1) / 6, abs=0.005)


@pytest.mark.parametrize(
    ("chi", "voxel_size", "b0_dir", "message"),
    [
        (np.zeros((4, 4)), (1, 1, 1), AXIAL, "shape"),
        (np.full((4, 4, 4), np.nan), (1, 1, 1), AXIAL, "NaN"),
        (np.zeros((4, 4, 4)), (1, 1, 0), AXIAL, "voxel_size"),
        (np.zeros((4, 4, 4)), (1, 1), AXIAL, "voxel_size"),
        (np.zeros((4, 4, 4)), (1, 1, 1), (0, 0, 0.5), "b0_dir"),
        (np.zeros((4, 4, 4)), (1, 1, 1), (0, np.nan, 1), "b0_dir"),
    ],
)
def test_forward_model_refuses(chi, voxel_size, b0_dir, message):
    with pytest.raises(ValueError, match=message):
        forward_field(chi, voxel_size, b0_dir)
