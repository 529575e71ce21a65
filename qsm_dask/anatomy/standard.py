"""Maps of a scan in the space of a template."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.atlas import Atlas
from qsm_dask.kernels.series import root_mean_square
from qsm_dask.kernels.standard import to_template
from qsm_dask.told import Told

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]


def standard(
    template_position: Real,
    magnitude: Real,
    mask: Mask,
    chi: Real,
    r2star: Real | None = None,
    /,
    *,
    template: Atlas,
) -> tuple[Real, Real, Real, NDArray[np.float64], Real, Told]:
    """Resample a scan's maps to the voxels of a template, with one interpolation.

    The registration tells where in the template each voxel of the scan lies; it is inverted here by Newton's method
    to tell where in the scan each voxel of the template lies. Values are interpolated among voxels of the mask.

    Parameters
    ----------
    template_position : (axis, x, y, z) position in the template's space of each voxel [mm].
    magnitude : (echo, x, y, z); its root mean square over echoes is resampled.
    mask : (x, y, z) voxels that count, the brain.
    chi : (x, y, z) susceptibility [ppm].
    r2star : (x, y, z) effective transverse relaxation rate [1/s].
    template : folder of the template that the scan was registered to, or of another in the same space, whose voxels
        the maps shall have.

    Returns
    -------
    chi_standard, r2star_standard, magnitude_standard : float32 (x, y, z) of the template, NaN outside the scan's mask;
        R2* NaN throughout where the scan has none.
    template_affine : (4, 4) voxel index of the template to position [mm].
    shape_standard : float32 (axis, x, y, z) how far from each voxel of the template the anatomy there lies in the scan,
        once the affine map that fits best has laid one on the other [mm]; NaN outside the mask.
    Told : number of voxels of the template with a value, and share of those whose place in the scan was not found.

    Raises
    ------
    ValueError : the mask is empty, a value inside it is NaN, or the atlas has no template.
    """
    if template.grid is None:
        raise ValueError("the template has no image: give a folder with a T2starw or a T1w")
    shape, affine = template.grid.shape, template.grid.affine
    maps = {"chi": chi, "magnitude": root_mean_square(magnitude)}
    if r2star is not None:
        maps["r2star"] = r2star
    found, shift, missed = to_template(maps, mask, template_position, shape, affine)
    outside = np.isnan(found["chi"])
    for along in shift:
        np.copyto(along, np.nan, where=outside)
    count = outside.size - int(np.count_nonzero(outside))
    if not count:
        raise ValueError("no voxel of the template lies inside the mask: is it the template of the registration?")
    rate = found.get("r2star")
    if rate is None:
        rate = np.full(shape, np.nan, dtype=np.float32)
    figures = {"standard_voxels": float(count), "not_inverted": missed / float(np.prod(shape))}
    warnings = (f"{missed} voxels of the template were not found in the scan",) if missed else ()
    told = Told(figures, warnings=warnings)
    return found["chi"], rate, found["magnitude"], np.array(affine, dtype=np.float64), shift, told
