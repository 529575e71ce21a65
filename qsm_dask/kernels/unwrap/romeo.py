"""ROMEO: exact unwrapping of multi-echo phase along its most reliable edges.

B. Dymerska et al., Phase unwrapping with a rapid opensource minimum spanning tree algorithm
(ROMEO), Magn. Reson. Med. 2021, doi:10.1002/mrm.28563.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.series import Mask, Real, Times
from qsm_dask.kernels.unwrap import temporal
from qsm_dask.kernels.unwrap.tree import owners_of_rest, unwrap_all, unwrap_rest
from qsm_dask.kernels.unwrap.weights import DEFAULT, Indices, chosen, records, weigh_edges


def romeo(
    phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    mode: Literal["template", "individual"] = "template",
    template_echo: int = 1,
    weights: tuple[str, ...] = DEFAULT,
    uncertain: float = 0.5,
) -> Real:
    """Unwrap phase exactly: the result differs from the input by whole turns in every voxel.

    The template echo is unwrapped in space, along a spanning tree of greatest weight for every
    disjoint component of the mask. The others follow in time, each from its neighbour by the
    ratio of echo times; where that misses by more than `uncertain` half turns, the voxel is
    unwrapped in space instead, from its neighbours. A component's own multiple of 2 pi brings
    its median closest to zero, unless the growth of phase with echo time clearly asks for another.

    Phase in proportion to echo time is assumed between echoes: remove the phase offset first
    (`offset.mcpc3ds`). An offset constant in a component does no harm.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad]; one echo is enough.
    mask : (x, y, z) voxels to unwrap.
    te : (echo,) echo times [s], at any spacing.
    magnitude : (echo, x, y, z) or None; without it its weights are left out.
    mode : `template`, or `individual`: every echo in space, by itself, then aligned in time. The first is faster and
        what Dymerska 2021 proposes where phase is free of offset.
    template_echo : the echo unwrapped in space, counted from 1. The first has wrapped least.
    weights : what an edge's weight is made of: any of phase_coherence, phase_gradient, phase_linearity,
        magnitude_coherence, magnitude_low and magnitude_high. The default takes all that are coherences, as the
        authors' library does; on three head phantoms at SNR 40 and 100 it, three of them, one or all six alike leave
        fewer than 3 voxels in 100,000 a turn off.
    uncertain : half turns of misfit in time beyond which space decides, 0 to 1; 1 never does. 0.5 is what the
        authors' program takes when asked to do this; from 0.25 to 1 results on the same heads are as good.

    Returns
    -------
    float32 (echo, x, y, z) unwrapped phase [rad], zero outside the mask.

    Raises
    ------
    ValueError : shapes or echo counts disagree, the mask is empty, phase or magnitude is NaN or
        infinite inside the mask, or a parameter is out of its range.
    """
    inside = series.inside(mask)
    times = series.echo_times(te)
    wrapped = series.echoes("phase", phase, times, inside)
    strength = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    if not 1 <= template_echo <= times.size:
        raise ValueError(f"template_echo is {template_echo}, and there are echoes 1 to {times.size}")
    if not 0 <= uncertain <= 1:
        raise ValueError(f"uncertain is {uncertain}: it is a fraction of half a turn, from 0 to 1")
    if mode not in {"template", "individual"}:
        raise ValueError(f"mode is {mode!r}: it must be 'template' or 'individual'")
    series_of = _Series(wrapped, times, strength, inside, chosen(weights))
    return series_of.unwrapped(template_echo - 1, mode == "individual", uncertain * math.pi)


class _Series:
    """An echo series on its way: the result, and the scratch that its echoes share."""

    def __init__(self, wrapped: Real, te: Times, magnitude: Real | None, inside: Mask, use: int) -> None:
        self.wrapped, self.te, self.magnitude, self.inside, self.use = wrapped, te, magnitude, inside, use
        self.values = np.where(inside, wrapped, np.float32(0))

    def unwrapped(self, template: int, individual: bool, limit: float) -> Real:
        order, starts = self.in_space(template)
        temporal.settle(self.values[template], self.wrapped, template, self.te, order, starts)
        upwards = [(echo, echo - 1) for echo in range(template + 1, self.te.size)]
        downwards = [(echo, echo + 1) for echo in range(template - 1, -1, -1)]
        for echo, known in upwards + downwards:
            ratio = float(self.te[echo] / self.te[known])
            if individual:
                self.in_space(echo)
                temporal.shift_to(self.values[echo], self.values[known], ratio, order, starts)
            else:
                around = self.values[echo], self.values[known], ratio, limit, order, starts, self.found
                if temporal.follow(*around) and limit < math.pi:
                    self.correct(echo, order)
        return self.values

    def in_space(self, echo: int) -> tuple[Indices, Indices]:
        self.found = records(self.inside)
        weigh_edges(self.found, self.wrapped, self.te, self.magnitude, echo, self.use)
        return unwrap_all(self.values[echo], self.found)

    def correct(self, echo: int, order: Indices) -> None:
        """Unwrap in space what time left uncertain."""
        owners = owners_of_rest(self.found, order)
        weigh_edges(self.found, self.wrapped, self.te, self.magnitude, echo, self.use, owners)
        unwrap_rest(self.values[echo], self.found, owners)
