"""Textbook float64 versions of the inversions that split the field off, with full complex transforms."""

import numpy as np

from qsm_dask.kernels import fourier
from tests.kernels.analytic import convolve, embed, full_dipole


def gradient(x, voxel_size):
    return np.stack([(np.roll(x, -1, a) - x) / v for a, v in enumerate(voxel_size)])


def adjoint(g, voxel_size):
    return sum((np.roll(g[a], 1, a) - g[a]) / v for a, v in enumerate(voxel_size))


def root(slope, low, high):
    """Where an ascending slope is zero, by bisection."""
    for _ in range(50):
        middle = (low + high) / 2
        rises = slope(middle) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    return (low + high) / 2


def cosine(wanted, phase, weight, penalty):
    """The minimum of weight [1 - cos(y - phase)] + penalty / 2 (y - wanted)^2."""
    low, high = np.minimum(wanted, phase), np.maximum(wanted, phase)
    return root(lambda y: weight * np.sin(y - phase) + penalty * (y - wanted), low, high)


def absolute(wanted, phase, weight, penalty):
    """The minimum of weight |exp(iy) - exp(i phase)| + penalty / 2 (y - wanted)^2."""
    error = wanted - phase
    turned = np.angle(np.exp(1j * error))
    size = np.abs(turned)
    rest = root(lambda r: weight * np.cos(r / 2) + penalty * (r - size), np.zeros_like(size), size)
    rest = np.where(weight + penalty * -size >= 0, 0.0, rest)
    return phase + error - turned + np.sign(turned) * rest


def square(wanted, phase, weight, penalty):
    """The minimum of weight / 2 (y - phase)^2 + penalty / 2 (y - wanted)^2."""
    return (weight * phase + penalty * wanted) / (weight + penalty)


class Problem:
    """Phase, squared weights and operators on the padded grid."""

    def __init__(self, field, mask, voxel_size, b0_dir, scale, weight):
        self.shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
        self.kernel = full_dipole(self.shape, voxel_size, b0_dir)
        self.mask, self.voxel_size, self.scale = mask, voxel_size, scale
        self.inside = embed(mask, self.shape).astype(bool)
        self.phase = embed(field, self.shape) * scale
        self.weight = embed(weight, self.shape)
        self.edge = np.prod(voxel_size) ** (1 / 3)
        delta = np.zeros(self.shape)
        delta[0, 0, 0] = 1
        self.symbol = np.fft.fftn(adjoint(gradient(delta, voxel_size), voxel_size)).real

    def crop(self, x):
        return x[tuple(slice(n) for n in self.mask.shape)] * self.mask / self.scale

    def admm(self, fit, weight, limit, rho, penalty, iterations, harmonic=None, start=None):
        """Least total variation under a data term; `harmonic` is the weight of a rest's Laplacian and its penalty."""
        size, p = self.voxel_size, penalty
        h, lap = np.zeros(self.shape), np.zeros(self.shape)
        x = np.zeros(self.shape) if start is None else start
        u, dual, dual_lap = np.zeros((3, *self.shape)), np.zeros(self.shape), np.zeros(self.shape)
        b, m = harmonic or (0.0, 0.0)
        for _ in range(iterations):
            wanted = convolve(x, self.kernel) + h + dual
            y = np.where(weight > 0, fit(wanted, self.phase, weight, p), wanted)
            dual = wanted - y
            total = gradient(x, size) + u
            z = total * np.maximum(0, 1 - limit / rho / np.maximum(np.sqrt((total**2).sum(axis=0)), 1e-30))
            u = total - z
            field = np.fft.fftn(y - dual)
            flat = np.fft.fftn(adjoint(z - u, size))
            d, negative = self.kernel, self.symbol
            if harmonic is None:
                below = p * d**2 + rho * negative
                below[0, 0, 0] = np.inf
                x = np.fft.ifftn((p * d * field + rho * flat) / below).real
                continue
            total = lap + dual_lap
            v = np.where(self.inside, m / (m + b) * total, total)
            dual_lap = total - v
            shall = np.fft.fftn(v - dual_lap)
            matrix = np.empty((*self.shape, 2, 2))
            matrix[..., 0, 0], matrix[..., 1, 1] = p * d**2 + rho * negative, p + m * negative**2
            matrix[..., 0, 1] = matrix[..., 1, 0] = p * d
            matrix[0, 0, 0, 0, 0] = 1
            right = np.stack([p * d * field + rho * flat, p * field - m * negative * shall], axis=-1)
            right[0, 0, 0, 0] = 0
            both = np.linalg.solve(matrix, right[..., None])[..., 0]
            x, h = np.fft.ifftn(both[..., 0]).real, np.fft.ifftn(both[..., 1]).real
            lap = np.fft.ifftn(-negative * both[..., 1]).real
        return x


def flattest_slopes(problem, iterations, limit, rho, second_limit, second_rho):
    """TGV under the cosine: chi and slopes w in one dense system of four unknowns a frequency."""
    size, shape = problem.voxel_size, problem.shape
    delta = np.zeros(shape)
    delta[0, 0, 0] = 1
    ahead = [np.fft.fftn((np.roll(delta, -1, a) - delta) / v) for a, v in enumerate(size)]
    back = [np.fft.fftn((delta - np.roll(delta, 1, a)) / v) for a, v in enumerate(size)]
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    # Rows: D, three of E - w, six of F with those off the diagonal counted twice; columns: chi, w.
    rows = np.zeros((*shape, 10, 4), complex)
    rows[..., 0, 0] = problem.kernel
    for a in range(3):
        rows[..., 1 + a, 0], rows[..., 1 + a, 1 + a] = ahead[a], -1
    for n, (a, b) in enumerate(pairs):
        rows[..., 4 + n, 1 + a] += back[b] / 2
        rows[..., 4 + n, 1 + b] += back[a] / 2
    scale = np.array([1.0, *[rho] * 3, *[second_rho] * 3, *[2 * second_rho] * 3])
    transposed = np.conj(np.swapaxes(rows, -1, -2)) * scale
    normal = transposed @ rows
    normal[0, 0, 0, 0, 0] = 1
    count = np.array([1, 1, 1, 2, 2, 2.0])[:, None, None, None]
    parts, duals = np.zeros((10, *shape)), np.zeros((10, *shape))
    for _ in range(iterations):
        total = parts + duals
        split = total.copy()
        split[0] = np.where(problem.weight > 0, cosine(total[0], problem.phase, problem.weight, 1.0), total[0])
        length = np.sqrt((total[1:4] ** 2).sum(axis=0))
        split[1:4] *= np.maximum(0, 1 - limit / rho / np.maximum(length, 1e-30))
        length = np.sqrt((count * total[4:] ** 2).sum(axis=0))
        split[4:] *= np.maximum(0, 1 - second_limit / second_rho / np.maximum(length, 1e-30))
        duals = total - split
        wanted = np.moveaxis(np.fft.fftn(split - duals, axes=(1, 2, 3)), 0, -1)[..., None]
        found = np.linalg.solve(normal, transposed @ wanted)
        found[0, 0, 0, 0] = 0
        parts = np.fft.ifftn(np.moveaxis((rows @ found)[..., 0], -1, 0), axes=(1, 2, 3)).real
    return np.fft.ifftn(found[..., 0, 0]).real


def plain_fansi_tgv(problem, iterations, second_weight):
    limit, rho, longer = 1e-4 * problem.scale, 1e-2 * problem.edge, second_weight * problem.edge
    given = limit, rho, limit * longer, rho * longer * problem.edge
    return problem.crop(flattest_slopes(problem, iterations, *given))


def plain_fansi(problem, iterations):
    limit, rho = 1e-4 * problem.scale, 1e-2 * problem.edge
    return problem.crop(problem.admm(cosine, problem.weight, limit, rho, 1.0, iterations))


def plain_whqsm(problem, iterations, harmonic):
    limit, rho = 1e-4 * problem.scale, 1e-2 * problem.edge
    return problem.crop(problem.admm(cosine, problem.weight, limit, rho, 1.0, iterations, harmonic))


def plain_l1(problem, iterations):
    weight = np.sqrt(problem.weight)
    return problem.crop(problem.admm(absolute, weight, 0.05, 2.5 * problem.edge, 20.0, iterations))


def plain_hdqsm(problem, iterations, weight_ppm_mm):
    weight = np.sqrt(problem.weight)
    x = problem.admm(absolute, weight, 0.05, 2.5 * problem.edge, 20.0, 20)
    error = problem.phase - convolve(x, problem.kernel)
    turned = np.angle(np.exp(1j * error))
    problem.phase = problem.phase - (error - turned)
    misfit = np.abs(turned) * weight
    usual = 3 * 1.4826 * np.median(misfit[problem.inside])
    weight = (weight * np.minimum(1, usual / np.maximum(misfit, 1e-30))) ** 2
    limit = weight_ppm_mm * problem.scale
    return problem.crop(
        problem.admm(square, weight, limit, 50 * weight_ppm_mm * problem.edge, 1.0, iterations, None, x)
    )
