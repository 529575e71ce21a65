"""The fluid of the ventricles: little R2*, one susceptibility, and so a zero that every scan brings along."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import Mask, Vector

REACH_MM = 30.0
"""From the centroid of the mask; farther out, little R2* is fluid in furrows and the noise of dark voxels."""

_PIECES = 3
"""How many connected pieces are taken: two lateral ventricles, and the third if it is apart."""


def ventricles(r2star: NDArray[np.float32], inside: Mask, size: Vector, below: float) -> Mask:
    """The fluid in the middle of the brain, as Liu 2018 finds it.

    Parameters
    ----------
    r2star : effective transverse relaxation rate (x, y, z) [1/s].
    inside : the brain.
    size : voxel size [mm].
    below : largest R2* of fluid [1/s].

    Returns
    -------
    mask : the largest three pieces of little R2* within 30 mm of the brain's centroid; empty where there is none.

    Raises
    ------
    ValueError : r2star does not fit the mask or is not finite inside it.

    References
    ----------
    Liu 2018, doi:10.1002/mrm.26946
    """
    rate = series.volume("r2star", r2star, inside)
    near = np.zeros(inside.shape, np.float32)
    for axis, step in enumerate(size):
        others = tuple(a for a in range(3) if a != axis)
        places = np.arange(inside.shape[axis])
        centre = float(inside.sum(axis=others) @ places) / np.count_nonzero(inside)
        near += np.expand_dims(np.square((places - centre) * step), others).astype(np.float32)
    fluid: Mask = (near < np.float32(REACH_MM**2)) & inside
    del near
    np.logical_and(fluid, rate < np.float32(below), out=fluid)
    labels, number = ndimage.label(fluid)
    if not number:
        return fluid
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    largest = np.argsort(-counts, kind="stable")[: min(_PIECES, number)]
    np.copyto(fluid, np.isin(labels, largest))
    return fluid
