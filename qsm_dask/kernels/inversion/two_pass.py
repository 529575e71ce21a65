"""One map from two: of the tissue without its strongest sources, and of everything."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.doors import check_mask, check_volume


def two_pass(
    chi_filled: NDArray[np.float32],
    mask: NDArray[Any],
    chi_reliable: NDArray[np.float32],
    mask_reliable: NDArray[Any],
    /,
) -> NDArray[np.float32]:
    """Susceptibility of the reliable voxels by themselves, with what they leave open from a map of all voxels.

    Haemorrhages, calcifications and large veins are strong and have the least reliable phase, and streaks spread
    from them. In a map whose mask has holes there, they count as background, which is removed, and do
    no harm. A second map, whose mask is filled, tells what lies in the holes. As each map is known up to a
    constant, the second is shifted to the first's mean over the voxels that both have.

    Parameters
    ----------
    chi_filled : susceptibility (x, y, z) [ppm] of the filled mask.
    mask : where it is known.
    chi_reliable : susceptibility (x, y, z) [ppm] of the reliable voxels.
    mask_reliable : where that is known.

    Returns
    -------
    chi : float32 (x, y, z) [ppm], zero outside `mask`.

    Raises
    ------
    ValueError : shapes differ, a mask is empty, the masks share no voxel, or a map is not finite inside its mask.

    References
    ----------
    Stewart 2022, doi:10.1002/mrm.29048
    """
    filled, reliable = check_mask(mask), check_mask(mask_reliable)
    if filled.shape != reliable.shape:
        raise ValueError(
            f"mask has shape {filled.shape} and mask_reliable {reliable.shape}: resample one to the other's grid"
        )
    everything = check_volume("chi_filled", chi_filled, filled)
    tissue = check_volume("chi_reliable", chi_reliable, reliable)
    both = filled & reliable
    if not both.any():
        raise ValueError("mask and mask_reliable share no voxel: both must come from one head")
    shift = tissue.mean(where=both, dtype=np.float64) - everything.mean(where=both, dtype=np.float64)
    chi = np.zeros(filled.shape, np.float32)
    np.add(everything, np.float32(shift), out=chi, where=filled, casting="unsafe")
    np.copyto(chi, tissue, where=both, casting="unsafe")
    return chi
