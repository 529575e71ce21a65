"""The parametric head: a brain in its skull, with sinuses, scalp and neck around."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom.brain import hull_distances, paint_brain
from qsm_dask.phantom.canvas import Canvas
from qsm_dask.phantom.grid import EXTENT_MM, head_frame, slices_below, voxel_positions, voxel_size
from qsm_dask.phantom.outside import paint_outside
from qsm_dask.phantom.randomness import smooth_field
from qsm_dask.phantom.shapes import Volume
from qsm_dask.phantom.subject import Subject
from qsm_dask.phantom.tissue import AIR, r2prime

TEXTURE_PPM = 0.002
"""Standard deviation of susceptibility within a region."""


@dataclass(frozen=True)
class Head:
    """A head before it is scanned.

    Attributes
    ----------
    chi : susceptibility inside the brain mask relative to water, 0 outside [ppm].
    surroundings : susceptibility of everything else relative to air [ppm], the brain as if it were water; it has
        `below` more slices at the low end of z.
    below : number of those slices.
    dia : magnitude of the diamagnetic part of chi [ppm]; the rest of chi is paramagnetic.
    r2 : irreversible part of r2star inside the mask, 0 outside [1/s].
    r2star : [1/s]; signal : at echo time zero [a.u.].
    mask : the brain, with the fluid in its furrows and ventricles.
    dseg : label image; voxels that no structure fills by half are 0.
    voxel_size : [mm].
    """

    chi: Volume
    surroundings: Volume
    below: int
    dia: Volume
    r2: Volume
    r2star: Volume
    signal: Volume
    mask: NDArray[np.bool_]
    dseg: NDArray[np.int32]
    voxel_size: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Matrix of the field of view."""
        nx, ny, nz = self.mask.shape
        return nx, ny, nz


def build_head(subject: Subject, shape: tuple[int, int, int], b0: float) -> Head:
    """Draw a subject's head on a grid.

    Parameters
    ----------
    subject : age, size and form.
    shape : matrix (x, y, z) of the fixed field of view.
    b0 : field strength [T], which scales R2'.

    Returns
    -------
    Head : maps on the grid.

    Raises
    ------
    ValueError : the matrix is too small.
    """
    spacing, below = voxel_size(shape), slices_below(shape)
    rng = np.random.default_rng(subject.form_seed)
    whole = head_frame(subject, voxel_positions(shape, below), spacing, rng)
    hull, stem = hull_distances(whole)
    outside = Canvas.blank(whole.shape, chi=AIR)
    paint_outside(outside, whole, hull, b0)

    frame, hull, stem = whole.above(below), hull[:, :, below:], stem[:, :, below:]
    positions = voxel_positions(shape)
    folds = smooth_field(rng, positions, EXTENT_MM, 9.0)
    texture = smooth_field(rng, positions, EXTENT_MM, 6.0)
    inside = Canvas.blank(shape)
    paint_brain(inside, frame, hull, stem, folds, subject, b0)

    share = frame.soft(hull)
    mask = share > 0.5
    texture *= np.float32(TEXTURE_PPM)
    chi = inside.chi + texture
    # A little more susceptibility than the tissue's is paramagnetic, a little less diamagnetic.
    dia = inside.dia + np.maximum(-texture, np.float32(0.0))
    r2 = inside.r2star - r2prime(inside.chi + inside.dia, inside.dia, b0)
    r2star = r2 + r2prime(chi + dia, dia, b0)
    surroundings = outside.chi
    surroundings[:, :, below:][mask] = 0.0
    surroundings -= np.float32(AIR)
    return Head(
        chi=np.where(mask, chi, np.float32(0.0)),
        surroundings=surroundings,
        below=below,
        dia=np.where(mask, dia, np.float32(0.0)),
        r2=np.where(mask, r2, np.float32(0.0)),
        r2star=np.where(mask, r2star, _mixed(outside.r2star[:, :, below:], r2star, share)),
        signal=_mixed(outside.signal[:, :, below:], inside.signal, share),
        mask=mask,
        dseg=np.where(mask, inside.majority(), 0).astype(np.int32),
        voxel_size=spacing,
    )


def _mixed(around: Volume, brain: Volume, share: Volume) -> Volume:
    return np.asarray(around + share * (brain - around), dtype=np.float32)
