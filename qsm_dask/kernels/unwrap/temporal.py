"""What the other echoes tell of the phase: whole turns of a component, and each echo from its neighbour."""

import numpy as np

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Real, Times
from qsm_dask.kernels.unwrap.weights import DONE, PENDING, STATE, Indices, Records

_TURN = 2 * np.pi
_SAMPLE = 50_000  # voxels of a component that tell its median and its mean direction well enough
_REACH = 4  # turns of the first echo tried on either side of the median
_COST = 0.05  # agreement that such a turn away from the median must gain


@compiled
def settle(values: Real, wrapped: Real, echo: int, te: Times, order: Indices, starts: Indices) -> None:
    """Choose each component's multiple of 2 pi, in place.

    It brings the median closest to zero, unless the phases of the other echoes, which grow in
    proportion to the echo time, clearly speak for another.

    Parameters
    ----------
    values : (x, y, z) unwrapped phase of `echo` [rad].
    wrapped : (echo, x, y, z) [rad].
    order, starts : the components, see `tree.unwrap_all`.
    """
    phase = values.ravel()
    for part in range(starts.size - 1):
        members = order[starts[part] : starts[part + 1]]
        sample = members[:: _step(members.size)]
        turns = np.rint(-np.median(phase[sample]) / _TURN)
        lengths = np.zeros(te.size)
        angles = np.zeros(te.size)
        for other in range(te.size):
            if other != echo:
                ratio = te[other] / te[echo]
                angle, length = _residual(wrapped[other].ravel(), phase, ratio, sample)
                angles[other] = angle - ratio * _TURN * turns
                lengths[other] = length
        turns += _agreeing(angles, lengths, te / te[echo])
        for i in members:
            phase[i] += _TURN * turns


@compiled
def follow(
    values: Real, reference: Real, ratio: float, limit: float, order: Indices, starts: Indices, found: Records
) -> int:
    """Unwrap an echo, in place, as the multiple of 2 pi nearest to the reference times `ratio`.

    A component's mean deviation from that, left by a phase offset, is taken out before, so that
    noise does not tip voxels over to the next turn. A voxel is set PENDING where it lies further than `limit` [rad]
    from what its reference foretells, else DONE.

    Returns
    -------
    How many are to do.
    """
    phase, other, record = values.ravel(), reference.ravel(), found.reshape(-1, 4)
    uncertain = 0
    for part in range(starts.size - 1):
        members = order[starts[part] : starts[part + 1]]
        bias, _ = _residual(phase, other, ratio, members[:: _step(members.size)])
        for i in members:
            foretold = ratio * other[i] + bias
            phase[i] -= _TURN * np.rint((phase[i] - foretold) / _TURN)
            doubtful = abs(phase[i] - foretold) > limit
            record[i, STATE] = PENDING if doubtful else DONE
            uncertain += doubtful
    return uncertain


@compiled
def shift_to(values: Real, reference: Real, ratio: float, order: Indices, starts: Indices) -> None:
    """Add to each component of an unwrapped echo the turns that bring it closest to the reference times `ratio`."""
    phase, other = values.ravel(), reference.ravel()
    for part in range(starts.size - 1):
        members = order[starts[part] : starts[part + 1]]
        sample = members[:: _step(members.size)]
        apart = np.empty(sample.size, dtype=np.float64)
        for k in range(sample.size):
            apart[k] = phase[sample[k]] - ratio * other[sample[k]]
        turns = np.rint(np.median(apart) / _TURN)
        for i in members:
            phase[i] -= _TURN * turns


@compiled
def _step(size: int) -> int:
    """Odd, lest it keep step with the rows of an image."""
    return size // _SAMPLE | 1


@compiled
def _residual(wrapped: Real, phase: Real, ratio: float, sample: Indices) -> tuple[float, float]:
    """Mean direction of the phase beyond `ratio` times the other, and the length of the mean vector."""
    real, imaginary = 0.0, 0.0
    for i in sample:
        angle = wrapped[i] - ratio * phase[i]
        real += np.cos(angle)
        imaginary += np.sin(angle)
    return np.arctan2(imaginary, real), np.hypot(real, imaginary) / sample.size


@compiled
def _agreeing(angles: Times, lengths: Times, ratios: Times) -> int:
    """The turns after which the mean directions of the other echoes lie closest to zero."""
    total = lengths.sum()
    best, chosen = -np.inf, 0
    reach = int(np.ceil(_REACH / ratios[0]))
    for turns in range(-reach, reach + 1):
        agreement = -_COST * abs(turns) * ratios[0]
        if total > 0:
            agreement += (lengths * np.cos(angles - _TURN * turns * ratios)).sum() / total
        if agreement > best:
            best, chosen = agreement, turns
    return chosen
