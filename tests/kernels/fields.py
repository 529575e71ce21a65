"""Smooth fields, the echoes they make, and heads to mask, all from formulas."""

import numpy as np

HZ_PER_PPM_PER_T = 42.577


def wrap(phase):
    return np.angle(np.exp(1j * np.asarray(phase, np.float64))).astype(np.float32)


def smooth(shape, seed=0, steepest=1.0):
    """A sum of waves whose steepest step between neighbours is `steepest`, mean not zero."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij", sparse=True)
    field = np.zeros(shape)
    for _ in range(3):
        waves = rng.uniform(-0.35, 0.35, 3)
        field = field + rng.uniform(0.5, 1) * np.cos(
            sum(k * g for k, g in zip(waves, grid, strict=True)) + rng.uniform(0, 6)
        )
    field = field + sum(rng.uniform(-0.2, 0.2) * g for g in grid)
    steps = max(np.abs(np.diff(field, axis=axis)).max(initial=0) for axis in range(3))
    return field * (steepest / steps)


def accrued(field, te, offset=0.0):
    """True phase (echo, x, y, z) of a field [rad/s]."""
    return np.stack([field * t + offset for t in te])


def ball(shape, centre, radius):
    grid = np.meshgrid(*[np.arange(n) - c for n, c in zip(shape, centre, strict=True)], indexing="ij", sparse=True)
    return sum(g * g for g in grid) <= radius * radius


def head(shape=(64, 64, 48), noise=0.02, seed=0):
    """Magnitude of a brain in a dark skull in a bright scalp, one bridge between them; the brain's mask."""
    rng = np.random.default_rng(seed)
    middle = [(n - 1) / 2 for n in shape]
    grid = np.meshgrid(
        *[(np.arange(n) - c) / c for n, c in zip(shape, middle, strict=True)], indexing="ij", sparse=True
    )
    radius = np.sqrt(sum(g * g for g in grid))
    brain, scalp = radius < 0.66, (radius > 0.8) & (radius < 0.92)
    image = 1.0 * brain + 1.3 * scalp
    middle_x, middle_y = shape[0] // 2, shape[1] // 2
    bridge = np.zeros(shape, bool)
    bridge[middle_x : middle_x + 2, middle_y : middle_y + 2, :] = True
    image[bridge & (radius < 0.92) & (image == 0)] = 1.0
    image = np.abs(image + noise * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))
    return image.astype(np.float32), brain
