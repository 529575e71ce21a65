"""Writing transforms as ITK, ANTs and nitransforms read them."""

from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.units import TO_LPS


def itk_affine(matrix: NDArray[np.float64]) -> bytes:
    """An affine map as the text file that ITK, ANTs and nitransforms read.

    Parameters
    ----------
    matrix : (4, 4), position in one space to that in another [mm]; x to the right, y to the front.
    """
    flipped = TO_LPS @ matrix @ TO_LPS
    numbers = " ".join(repr(float(number)) for number in (*flipped[:3, :3].ravel(), *flipped[:3, 3]))
    head = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    return f"{head}Parameters: {numbers}\nFixedParameters: 0 0 0\n".encode()


def write_displacements(path: str | Path, positions: NDArray[np.float32], affine: ArrayLike) -> None:
    """Write where each voxel lies in another space as a field of displacements that ITK, ANTs and nitransforms read.

    Given to them as a transform, the field resamples images of the other space onto this grid.

    Parameters
    ----------
    path : `.nii.gz`.
    positions : (axis, x, y, z) position in the other space [mm].
    affine : voxel index to scanner position [mm].
    """
    path, matrix = Path(path), np.asarray(affine, dtype=np.float64)
    index = np.ix_(*(np.arange(n, dtype=np.float64) for n in positions.shape[1:]))
    field = np.empty((*positions.shape[1:], 1, 3), dtype=np.float32)
    for axis, sign in enumerate(np.diag(TO_LPS)[:3]):
        here = matrix[axis, 3] + sum(matrix[axis, other] * index[other] for other in range(3))
        field[..., 0, axis] = sign * (positions[axis] - here)
    image = cast("Any", nib.Nifti1Image)(field, matrix)
    image.set_qform(matrix, 1)
    image.set_sform(matrix, 1)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm", "sec")
    partial = path.with_name(f".{path.name.removesuffix('.nii.gz')}.partial.nii.gz")
    nib.save(image, partial)
    partial.replace(path)
