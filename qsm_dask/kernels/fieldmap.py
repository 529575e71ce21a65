"""One field from the unwrapped phase of several echoes."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import noise, series
from qsm_dask.kernels.doors import check_positive
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.noise import phase_variance
from qsm_dask.kernels.series import Mask, Real, Times
from qsm_dask.units import radians_per_ppm

_POWERS = {"phase_variance": 2, "phase_snr": 1, "uniform": 0, "decay": 0}


def weighted_mean(
    unwrapped_phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    b0: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    weighting: Literal["phase_variance", "phase_snr", "uniform", "decay"] = "phase_variance",
    decay_s: float = 0.04,
) -> tuple[Real, Real]:
    """Combine the echoes to the total field, as the weighted mean of phase over echo time.

    The noise of phase / TE has the variance (sigma / (magnitude TE))^2, so `phase_variance`,
    with the weights (magnitude TE)^2, gives the mean of least variance. It is the least-squares
    slope through the origin: phase must be free of offset.

    The noise level of the series is estimated from the misfit of that line in all voxels (their
    median, so that voxels whose phase is no line do not count), and with a single echo, which
    always fits, from differences in space.

    Parameters
    ----------
    unwrapped_phase : (echo, x, y, z) [rad].
    mask : (x, y, z).
    te : (echo,) echo times [s].
    b0 : field strength [T].
    magnitude : (echo, x, y, z) or None: all echoes are taken as equally bright. So they are in
        voxels whose magnitude is zero in every echo.
    weighting : `phase_variance`: (magnitude TE)^2; `phase_snr`: magnitude TE; `uniform`: 1;
        `decay`: TE exp(-TE / `decay_s`), the same in every voxel.
    decay_s : time of the decay in these weights [s]; 0.04 as the UK Biobank takes it (Wang 2022).

    Returns
    -------
    total_field : float32 (x, y, z) relative field [ppm], zero outside the mask.
    field_noise : float32 (x, y, z) its standard deviation [ppm]. Phase never counts as noisier
        than uniform phase, so it is finite where the magnitude is zero. Zero outside the mask.

    Raises
    ------
    ValueError : shapes or echo counts disagree, the mask is empty, values inside it are NaN or
        infinite, or b0 or the weighting is unusable.

    References
    ----------
    S. Robinson et al., NMR Biomed. 2017, doi:10.1002/nbm.3601; C. Wang et al., Nat. Neurosci. 2022,
    doi:10.1038/s41593-022-01074-w
    """
    inside = series.inside(mask)
    times = series.echo_times(te)
    unwrapped = series.echoes("unwrapped_phase", unwrapped_phase, times, inside)
    strength = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    scale = 1 / radians_per_ppm(series.field_strength(b0), 1.0)
    if weighting not in _POWERS:
        raise ValueError(f"weighting is {weighting!r}: it must be one of {', '.join(_POWERS)}")
    field, deviation = np.zeros(inside.shape, dtype=np.float32), np.zeros(inside.shape, dtype=np.float32)
    like = unwrapped if strength is None else strength
    level = noise.phase_noise(unwrapped, strength, inside, times, intercept=False)
    check_positive(decay_s=decay_s)
    power = _POWERS[weighting]
    base = times * np.exp(-times / decay_s) if weighting == "decay" else times**power
    _combine(unwrapped, like, strength is not None, inside, times, base, power, level, scale, field, deviation)
    return field, deviation


@compiled
def _combine(
    phase: Real,
    magnitude: Real,
    known: bool,
    inside: Mask,
    te: Times,
    base: Times,
    power: int,
    level: float,
    scale: float,
    field: Real,
    deviation: Real,
) -> None:
    echoes, nx, ny, nz = phase.shape
    weights = np.empty(echoes)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                total = 0.0
                for echo in range(echoes):
                    bright = max(0.0, float(magnitude[echo, x, y, z])) if known and power else 1.0
                    weights[echo] = bright**power * base[echo]
                    total += weights[echo]
                if not total > 0:
                    weights[:] = base
                    total = weights.sum()
                mean, variance = 0.0, 0.0
                for echo in range(echoes):
                    share = weights[echo] / (total * te[echo])
                    bright = float(magnitude[echo, x, y, z]) if known else 1.0
                    mean += share * phase[echo, x, y, z]
                    variance += share * share * phase_variance(level, bright)
                field[x, y, z] = scale * mean
                deviation[x, y, z] = scale * np.sqrt(variance)
