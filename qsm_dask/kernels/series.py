"""Doors for what compiled kernels read: echo series, echo times, masks and maps.

Every array comes out C-contiguous, of its one dtype and read-only: an input is never altered,
is copied only where it has to be, and numba compiles for one kind of array. As in `doors`,
NaN outside the mask is no fault, because no kernel looks there.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.doors import check_mask
from qsm_dask.kernels.jit import compiled

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]
Times = NDArray[np.float64]


def echo_times(te: ArrayLike, at_least: int = 1) -> Times:
    """Echo times [s] as float64.

    Raises
    ------
    ValueError : they are not positive, finite and ascending, look like milliseconds, or are
        fewer than `at_least`.
    """
    times = np.atleast_1d(np.array(te, dtype=np.float64))
    if times.ndim != 1 or not np.isfinite(times).all() or (times <= 0).any() or (np.diff(times) <= 0).any():
        raise ValueError(f"te is {times.tolist()}: echo times must be positive, finite and ascending, in seconds")
    if times.size < at_least:
        raise ValueError(f"te lists {times.size} echo time(s): this method needs at least {at_least} echoes")
    if times[0] > 1:
        raise ValueError(f"te starts at {times[0]:g}: echo times are in seconds, and these look like milliseconds")
    return read_only(times)


def echoes(name: str, array: NDArray[Any], te: Times | None, mask: Mask | None) -> Real:
    """Volumes (echo, x, y, z) as float32, one for each echo time if these matter, finite inside the mask.

    Raises
    ------
    ValueError : the array is not four-dimensional or is empty, does not match `te` or the mask,
        or is NaN or infinite inside the mask (without a mask: anywhere).
    """
    array = np.asarray(array)
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}, not (echo, x, y, z); a single echo needs its axis too")
    if te is not None and array.shape[0] != te.size:
        raise ValueError(f"{name} has {array.shape[0]} echo(es) and te {te.size}: they must be equally many")
    return _checked(name, array, mask)


def brightness(magnitude: NDArray[Any] | None, te: Times, mask: Mask) -> Real | None:
    """The magnitude of each echo, for what would do nothing at all without signal; None if there is none.

    Raises
    ------
    ValueError : see `echoes`, or no voxel of the mask has signal.
    """
    if magnitude is None:
        return None
    bright = echoes("magnitude", magnitude, te, mask)
    if not any(bool(((volume > 0) & mask).any()) for volume in bright):
        raise ValueError("magnitude is 0 in the whole mask: check the image, or leave the magnitude away")
    return bright


def root_mean_square(magnitude: Real) -> Real:
    """The root mean square over echoes, echo by echo: a copy of a series would count in the peak memory."""
    total = np.zeros(magnitude.shape[1:], dtype=np.float32)
    for echo in magnitude:
        total += np.square(echo)
    total /= np.float32(magnitude.shape[0])
    return np.sqrt(total, out=total)


def volume(name: str, array: NDArray[Any], mask: Mask) -> Real:
    """A map (x, y, z) as float32, finite inside the mask.

    Raises
    ------
    ValueError : its shape differs from the mask's, or it is NaN or infinite inside the mask.
    """
    return _checked(name, np.asarray(array), mask)


def inside(mask: NDArray[Any]) -> Mask:
    """A mask (x, y, z) as bool; what is not zero is inside.

    Raises
    ------
    ValueError : the mask is not three-dimensional or has no voxel.
    """
    return read_only(np.ascontiguousarray(check_mask(mask)))


def field_strength(b0: ArrayLike) -> float:
    """Field strength [T] as a float.

    Raises
    ------
    ValueError : it is not one positive, finite number.
    """
    values = np.asarray(b0, dtype=np.float64)
    if values.size != 1 or not np.isfinite(values).all() or values.item() <= 0:
        raise ValueError(f"b0 is {values.tolist()}: it must be one positive number in tesla")
    return float(values.item())


def _checked(name: str, array: NDArray[Any], mask: Mask | None) -> Real:
    if mask is not None and array.shape[-3:] != mask.shape:
        raise ValueError(f"{name} has shape {array.shape} and mask {mask.shape}: resample one to the other's grid")
    if np.iscomplexobj(array):
        raise ValueError(f"{name} is complex: hand over real values")
    values: Real = read_only(np.ascontiguousarray(array, dtype=np.float32))
    everywhere = mask is None
    bad, first = _not_finite(values.ravel(), _EVERYWHERE if mask is None else mask.ravel(), everywhere)
    if bad:
        place = tuple(int(i) for i in np.unravel_index(first, array.shape))
        where = "" if everywhere else " of the mask"
        raise ValueError(
            f"{name} is NaN or infinite in {bad} voxels{where}, the first at {place}: repair them or mask them out"
        )
    return values


@compiled
def _not_finite(values: Real, mask: Mask, everywhere: bool) -> tuple[int, int]:
    """How many values are not finite, and where the first is."""
    period = values.size if everywhere else mask.size
    bad = 0
    for start in range(0, values.size, period):
        part = values[start : start + period]
        if everywhere:
            for value in part:
                bad += value - value != 0
        else:
            for i in range(period):  # without a branch, so that it runs at the speed of memory
                bad += (part[i] - part[i] != 0) & mask[i]
    if bad:
        for i in range(values.size):
            if not np.isfinite(values[i]) and (everywhere or mask[i % period]):
                return bad, i
    return bad, -1


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same values, C-contiguous, through a view that cannot alter them."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


_EVERYWHERE = read_only(np.ones(1, dtype=np.bool_))
