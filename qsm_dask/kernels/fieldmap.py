"""One field from the unwrapped phase of several echoes."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real, Times
from qsm_dask.units import radians_per_ppm

_POWERS = {"phase_variance": 2, "phase_snr": 1, "uniform": 0}


def weighted_mean(
    unwrapped_phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    b0: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    weighting: Literal["phase_variance", "phase_snr", "uniform"] = "phase_variance",
) -> Real:
    """Combine the echoes to the total field, as the weighted mean of phase over echo time.

    The noise of phase / TE has the variance (sigma / (magnitude TE))^2, so `phase_variance`,
    with the weights (magnitude TE)^2, gives the mean of least variance. It is the least-squares
    slope through the origin: phase must be free of offset.

    Parameters
    ----------
    unwrapped_phase : (echo, x, y, z) [rad].
    mask : (x, y, z).
    te : (echo,) echo times [s].
    b0 : field strength [T].
    magnitude : (echo, x, y, z) or None: all echoes are taken as equally bright. So they are in
        voxels whose magnitude is zero in every echo.
    weighting : `phase_variance`: (magnitude TE)^2; `phase_snr`: magnitude TE; `uniform`: 1.

    Returns
    -------
    float32 (x, y, z) relative field [ppm], zero outside the mask.

    Raises
    ------
    ValueError : shapes or echo counts disagree, the mask is empty, values inside it are NaN or
        infinite, or b0 or the weighting is unusable.

    References
    ----------
    S. Robinson et al., NMR Biomed. 2017, doi:10.1002/nbm.3601
    """
    inside = series.inside(mask)
    times = series.echo_times(te)
    unwrapped = series.echoes("unwrapped_phase", unwrapped_phase, times, inside)
    strength = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    scale = 1 / radians_per_ppm(series.field_strength(b0), 1.0)
    if weighting not in _POWERS:
        raise ValueError(f"weighting is {weighting!r}: it must be one of {', '.join(_POWERS)}")
    field = np.zeros(inside.shape, dtype=np.float32)
    weighted = strength is not None and weighting != "uniform"
    like = unwrapped if strength is None else strength
    _combine(unwrapped, like, weighted, inside, times, _POWERS[weighting], scale, field)
    return field


@compiled
def _combine(
    phase: Real,
    magnitude: Real,
    weighted: bool,
    inside: Mask,
    te: Times,
    power: int,
    scale: float,
    field: Real,
) -> None:
    echoes, nx, ny, nz = phase.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                total, plain, weight, plain_weight = 0.0, 0.0, 0.0, 0.0
                for echo in range(echoes):
                    rate = phase[echo, x, y, z] / te[echo]
                    of_time = te[echo] ** power
                    bright = max(0.0, float(magnitude[echo, x, y, z])) ** power if weighted else 1.0
                    weight += bright * of_time
                    total += bright * of_time * rate
                    plain_weight += of_time
                    plain += of_time * rate
                mean = total / weight if weight > 0 else plain / plain_weight
                field[x, y, z] = scale * mean
