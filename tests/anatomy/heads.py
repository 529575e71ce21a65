"""A toy head at template positions, and a scan and a template of it whose true relation is known by formula."""

import numpy as np

from qsm_dask.atlas import Atlas, Image

SHAPE = (40, 44, 38)
VOXEL = 4.0
CENTRE = np.array([12.0, -9.0, 20.0])
WAVES = np.random.default_rng(7).standard_normal((12, 3)) / 8.0
"""Of a texture that has edges in every direction [1/mm]."""


def world(affine, shape=SHAPE):
    index = np.indices(shape).astype(float)
    return np.tensordot(affine[:3, :3], index, axes=1) + affine[:3, 3].reshape(3, 1, 1, 1)


def head(at):
    """Magnitude, susceptibility and brain of a head at template positions (3, …) [mm]."""
    x, y, z = at
    brain = (x / 62) ** 2 + (y / 74) ** 2 + (z / 58) ** 2 < 1
    waves = sum(np.sin(a * x + b * y + c * z + n) for n, (a, b, c) in enumerate(WAVES))
    magnitude = brain * (10 + waves)
    nuclei = [(-24, 5, 0), (24, 5, 0), (-10, -15, -12), (10, -15, -12)]
    chi = sum(0.12 * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 150) for a, b, c in nuclei)
    return magnitude.astype(np.float32), (brain * chi).astype(np.float32), brain


def t1w_of(at):
    """The same head by another contrast: what is bright in the magnitude is dark, and there is a scalp."""
    magnitude, _, brain = head(at)
    x, y, z = at
    scalp = ((x / 72) ** 2 + (y / 84) ** 2 + (z / 68) ** 2 < 1) & ~((x / 67) ** 2 + (y / 79) ** 2 + (z / 63) ** 2 < 1)
    return np.where(brain, 30.0 - 1.5 * magnitude, 25.0 * scalp).astype(np.float32)


def template(*, t1w=False):
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -VOXEL * (np.array(SHAPE) - 1) / 2
    magnitude, chi, brain = head(world(affine))
    contrasts = {"T1w": t1w_of(world(affine))} if t1w else {"magnitude": magnitude}
    images = {name: Image(values, affine) for name, values in (contrasts | {"chi": chi}).items()}
    return Atlas("toy", images, Image(brain, affine))


def turned(degrees):
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def into_template(at):
    """Where positions of the scanner lie in the template: known, and no affine map."""
    x, y, z = at - CENTRE.reshape(3, 1, 1, 1)
    return np.stack([1.04 * x + 5 * np.sin(y / 20), 0.97 * y + 5 * np.sin(z / 18), z - 4 * np.sin(x / 22)])


def scan():
    """A scan whose axes are turned and shifted against the template's, and the true template positions."""
    affine = np.eye(4)
    affine[:3, :3] = turned(9.0) @ np.diag([-VOXEL, VOXEL, VOXEL])  # stored from right to left
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    truth = into_template(world(affine))
    magnitude, chi, brain = head(truth)
    return magnitude, chi, brain, affine, truth


def t1w_scan():
    """The T1w of the same head after it moved, on a grid of its own; its affine, and the true rigid map to it."""
    moved = np.eye(4)
    moved[:3, :3] = turned(4.0)
    moved[:3, 3] = CENTRE - moved[:3, :3] @ CENTRE + (3.0, -2.0, 4.0)
    shape, size = (42, 58, 46), np.array([4.0, 3.0, 4.0])
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = CENTRE - size * (np.array(shape) - 1) / 2
    back = np.linalg.inv(moved)
    there = world(affine, shape)
    before = np.tensordot(back[:3, :3], there, axes=1) + back[:3, 3].reshape(3, 1, 1, 1)
    return t1w_of(into_template(before)), affine, moved
