"""Shapes with fields known from analysis, and plain float64 mathematics to compare kernels with."""

import itertools

import numpy as np
import scipy.fft

AXIAL = np.array([0.0, 0.0, 1.0])
OBLIQUE = np.array([0.36, -0.48, 0.8])


def positions(shape, voxel_size, centre=None):
    """Distances [mm] along each axis from `centre` (in voxels; the middle if not given), sparse."""
    centre = (np.array(shape) - 1) / 2 if centre is None else centre
    axes = [(np.arange(n) - c) * v for n, c, v in zip(shape, centre, voxel_size, strict=True)]
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def ellipsoid(shape, voxel_size, semi_axes, centre=None):
    x, y, z = positions(shape, voxel_size, centre)
    return (x / semi_axes[0]) ** 2 + (y / semi_axes[1]) ** 2 + (z / semi_axes[2]) ** 2 < 1


def sphere_fraction(shape, voxel_size, radius, centre=None, parts=5):
    """The fraction of each voxel that a sphere fills."""
    centre = (np.array(shape) - 1) / 2 if centre is None else np.array(centre)
    offsets = (np.arange(parts) - (parts - 1) / 2) / parts
    total = np.zeros(shape)
    for dx in offsets:
        for dy in offsets:
            for dz in offsets:
                total += ellipsoid(shape, voxel_size, (radius,) * 3, centre - np.array([dx, dy, dz]))
    return total / parts**3


def dipole_field(shape, voxel_size, b0_dir, centre, radius, chi):
    """Field [ppm] outside a sphere of susceptibility `chi`: chi/3 (a/r)^3 (3 cos^2 - 1); and the distance r."""
    x, y, z = positions(shape, voxel_size, centre)
    r = np.sqrt(x**2 + y**2 + z**2)
    along = x * b0_dir[0] + y * b0_dir[1] + z * b0_dir[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        field = chi / 3 * (radius / r) ** 3 * (3 * (along / r) ** 2 - 1)
    return field, r


def full_dipole(shape, voxel_size, b0_dir):
    """The kernel on the full grid in float64; samples at a Nyquist frequency are means over its two signs."""
    total = np.zeros(shape)
    signs = list(itertools.product((-1, 1), repeat=3))
    for sign in signs:
        axes = [scipy.fft.fftfreq(n, v) for n, v in zip(shape, voxel_size, strict=True)]
        for axis, n, s in zip(axes, shape, sign, strict=True):
            if n % 2 == 0:
                axis[n // 2] *= s
        k = np.meshgrid(*axes, indexing="ij")
        square = sum(a * a for a in k)
        square[0, 0, 0] = 1.0
        total += 1 / 3 - sum(a * b for a, b in zip(k, b0_dir, strict=True)) ** 2 / square
    total[0, 0, 0] = 0.0
    return total / len(signs)


def convolve(volume, kernel):
    """Multiply by a full spectrum in float64 complex arithmetic; the imaginary part must vanish."""
    result = scipy.fft.ifftn(scipy.fft.fftn(np.asarray(volume, np.float64)) * kernel)
    assert np.abs(result.imag).max() <= 1e-10 * max(np.abs(result.real).max(), 1e-30)
    return result.real


def embed(volume, shape):
    """The volume in the low corner of zeros."""
    padded = np.zeros(shape)
    padded[tuple(slice(n) for n in volume.shape)] = volume
    return padded


def relative_error(value, truth):
    value, truth = np.asarray(value, np.float64), np.asarray(truth, np.float64)
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


def head(shape=(40, 44, 36), voxel_size=(2.0, 2.0, 2.0), b0_dir=AXIAL, seed=0, noise=0.0):
    """A small ellipsoid of tissue with two sources; returns chi, its field and the mask, all float64."""
    size = np.array(shape) * np.array(voxel_size)
    mask = ellipsoid(shape, voxel_size, size * 0.36)
    centre = (np.array(shape) - 1) / 2
    chi = 0.1 * sphere_fraction(shape, voxel_size, size.min() * 0.1, centre + np.array(shape) * [0.12, 0.05, 0.04])
    chi -= 0.2 * sphere_fraction(shape, voxel_size, size.min() * 0.07, centre - np.array(shape) * [0.14, 0.1, 0.08])
    chi += 0.02 * ellipsoid(shape, voxel_size, size * 0.2)
    chi *= mask
    double = tuple(2 * n for n in shape)
    field = convolve(embed(chi, double), full_dipole(double, voxel_size, b0_dir))[tuple(slice(n) for n in shape)]
    field = field + noise * np.random.default_rng(seed).standard_normal(shape)
    return chi, field * mask, mask
