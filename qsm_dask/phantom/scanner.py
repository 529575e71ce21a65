"""What a scanner makes of a head: shimmed field, echoes with decay, offset and noise, integer phase."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.dipole import forward_field
from qsm_dask.kernels.relaxometry import loglinear
from qsm_dask.phantom.background import background_field
from qsm_dask.phantom.grid import CENTRE_MM, EXTENT_MM, Positions, voxel_positions
from qsm_dask.phantom.head import Head
from qsm_dask.phantom.randomness import smooth_field
from qsm_dask.phantom.shapes import Volume
from qsm_dask.units import radians_per_ppm

PHASE_STEPS = 4096
"""Values of the integer phase in one turn."""

SPIN_ECHO_TE = (0.015, 0.030, 0.045, 0.060, 0.075, 0.090)
"""Echo times of the spin echoes that measure R2 [s]."""
_COIL_DISTANCE_MM = 190.0
_COIL_RADIUS_MM = 60.0
_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))


@dataclass(frozen=True)
class Fields:
    """Relative fields of a head [ppm].

    Attributes
    ----------
    total : of all sources, shimmed.
    local : of the sources inside the brain mask.
    """

    total: Volume
    local: Volume


def _positions(head: Head) -> Positions:
    """Voxel centres from the isocentre [mm]."""
    return [position - middle for position, middle in zip(voxel_positions(head.shape), CENTRE_MM, strict=True)]


def _shim_terms(x: Any, y: Any, z: Any) -> tuple[Any, ...]:
    """Solid harmonics up to the second degree, what shim coils make: they leave the Laplacian of the field alone."""
    return (x, y, z, x * y, x * z, y * z, x * x - y * y, 2.0 * z * z - x * x - y * y)


def shim(field: Volume, head: Head) -> Volume:
    """Take the centre frequency and shim currents up to the second order from a field, fitted inside the brain.

    Parameters
    ----------
    field : (x, y, z) [ppm].
    head : whose mask and voxel size count.

    Returns
    -------
    Volume : the field that remains, everywhere [ppm].
    """
    positions = [position / 100.0 for position in _positions(head)]
    inside = np.nonzero(head.mask)
    step = max(1, inside[0].size // 5_000)
    sample = tuple(index[::step] for index in inside)
    points = [position[index] for position, index in zip(positions, sample, strict=True)]
    terms = _shim_terms(*points)
    design = np.stack([np.ones_like(points[0]), *terms], axis=1)
    currents = np.linalg.solve(design.T @ design, design.T @ field[sample]).astype(np.float32)
    x, y, z = np.ix_(*(position.astype(np.float32) for position in positions))
    result: Volume = field - currents[0]
    for current, term in zip(currents[1:], _shim_terms(x, y, z), strict=True):
        result -= current * term
    return result


def fields_of(head: Head, b0_dir: NDArray[np.float64]) -> Fields:
    """The relative fields of a head.

    Air is the zero of the source, so that the source ends with the head and the space around the grid, neck
    apart, is what it should be; a uniform susceptibility makes no field.

    Parameters
    ----------
    head : drawn by `build_head`.
    b0_dir : unit vector of B0 in array axes.
    """
    local = forward_field(head.chi, head.voxel_size, b0_dir)
    background = background_field(head.surroundings, head.voxel_size, b0_dir)[:, :, head.below :]
    return Fields(shim(background + local, head), local)


def phase_offset(head: Head, rng: np.random.Generator) -> Volume:
    """A smooth phase at echo time zero [rad]: a constant, a slope and the receive coil's own variation."""
    positions = _positions(head)
    offset: Volume = np.float32(0.5) * smooth_field(rng, voxel_positions(head.shape), EXTENT_MM, 70.0)
    grid = np.ix_(*((position / 100.0).astype(np.float32) for position in positions))
    for part, slope in zip(grid, rng.uniform(-1.0, 1.0, 3), strict=True):
        offset += np.float32(slope) * part
    offset += np.float32(rng.uniform(-np.pi, np.pi))
    return offset


def sensitivity(head: Head, rng: np.random.Generator) -> Volume:
    """A smooth receive sensitivity, about 1 in the middle and higher near the coil."""
    x, y, z = np.ix_(*(position.astype(np.float32) / np.float32(100.0) for position in _positions(head)))
    ripple = smooth_field(rng, voxel_positions(head.shape), EXTENT_MM, 80.0)
    tilt = rng.uniform(-0.08, 0.08, 3)
    shading: Volume = 0.9 + 0.30 * (x * x + y * y) + 0.15 * z * z + tilt[0] * x + tilt[1] * y + tilt[2] * z
    return np.asarray(shading * (1.0 + 0.03 * ripple), dtype=np.float32)


def echoes(
    head: Head,
    fields: Fields,
    *,
    te: NDArray[np.float64],
    b0: float,
    snr: float,
    rng: np.random.Generator,
) -> tuple[Volume, Volume, Volume]:
    """Magnitude and wrapped phase of each echo.

    Parameters
    ----------
    head, fields : what is scanned.
    te : echo times [s].
    b0 : field strength [T].
    snr : mean magnitude of the brain at the first echo over the noise of a channel; `inf` for none.
    rng : draws coil, offset and noise, in this order.

    Returns
    -------
    magnitude (echo, x, y, z) [a.u.], phase (echo, x, y, z) in [-pi, pi) [rad], offset (x, y, z) [rad].
    """
    signal, offset = head.signal * sensitivity(head, rng), phase_offset(head, rng)
    noise = _noise(head, signal, te, snr)
    shape = (te.size, *signal.shape)
    magnitude, phase = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for number, time in enumerate(te):
        magnitude[number], phase[number] = _echo(head, fields, float(time), b0, signal, offset, noise, rng)
    return magnitude, phase, offset


def spin_echo_r2(head: Head, *, snr: float, te: float, rng: np.random.Generator) -> Volume:
    """R2 inside the brain mask as a train of ideal spin echoes measures it [1/s].

    Parameters
    ----------
    head : what is scanned.
    snr : as in `echoes`: of a gradient echo.
    te : time of that gradient echo [s].
    rng : draws the noise.
    """
    signal = np.where(head.mask, head.signal, np.float32(0.0))
    noise = _noise(head, head.signal, np.array([te]), snr)
    magnitude = np.empty((len(SPIN_ECHO_TE), *head.shape), np.float32)
    for image, time in zip(magnitude, SPIN_ECHO_TE, strict=True):
        real = signal * np.exp(np.float32(-time) * head.r2)
        imaginary = np.zeros_like(real)
        if noise > 0.0:
            real += noise * rng.standard_normal(head.shape, dtype=np.float32)
            imaginary += noise * rng.standard_normal(head.shape, dtype=np.float32)
        np.hypot(real, imaginary, out=image)
    return loglinear(magnitude, SPIN_ECHO_TE, head.mask)


def coil_echoes(
    head: Head,
    fields: Fields,
    *,
    te: NDArray[np.float64],
    b0: float,
    snr: float,
    rng: np.random.Generator,
    coils: int,
    coil_rng: np.random.Generator,
) -> Iterator[tuple[Volume, Volume]]:
    """Magnitude and wrapped phase of each echo of one receive coil after the other.

    The squares of their sensitivities add up to that of `echoes`, and the noise of a coil is the
    noise of `echoes`: combined by a matched filter they have the same signal and the same SNR.

    Parameters
    ----------
    head, fields, te, b0, snr, rng : as of `echoes`, and with the same draws the same head.
    coils : how many there are.
    coil_rng : draws the coils' phases and noise.

    Yields
    ------
    magnitude (echo, x, y, z) [a.u.], phase (echo, x, y, z) in [-pi, pi) [rad].
    """
    signal, offset = head.signal * sensitivity(head, rng), phase_offset(head, rng)
    noise = _noise(head, signal, te, snr)
    phases = [coil_rng.uniform(-np.pi, np.pi) for _ in range(coils)]
    total: Volume = np.sqrt(np.asarray(sum(_loop(head, number, coils)[0] ** 2 for number in range(coils))))
    shape = (te.size, *signal.shape)
    for number, constant in enumerate(phases):
        strength, turn = _loop(head, number, coils)
        received: Volume = signal * (strength / total)
        turned: Volume = offset + turn + np.float32(constant)
        magnitude, phase = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for echo, time in enumerate(te):
            made = _echo(head, fields, float(time), b0, received, turned, noise, coil_rng)
            magnitude[echo], phase[echo] = made
        yield magnitude, phase


def _noise(head: Head, signal: Volume, te: NDArray[np.float64], snr: float) -> np.float32:
    """Standard deviation of the noise of a channel."""
    first = signal * np.exp(np.float32(-te[0]) * head.r2star)
    return np.float32(first[head.mask].mean(dtype=np.float64) / snr)


def _echo(
    head: Head,
    fields: Fields,
    time: float,
    b0: float,
    signal: Volume,
    offset: Volume,
    noise: np.float32,
    rng: np.random.Generator,
) -> tuple[Volume, Volume]:
    """Magnitude and phase of one echo."""
    angle = np.float32(radians_per_ppm(b0, time)) * fields.total + offset
    decayed = signal * np.exp(np.float32(-time) * head.r2star)
    real = decayed * np.cos(angle)
    imaginary = decayed * np.sin(angle)
    if noise > 0.0:
        real += noise * rng.standard_normal(signal.shape, dtype=np.float32)
        imaginary += noise * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, imaginary), np.arctan2(imaginary, real)


def _loop(head: Head, number: int, coils: int) -> tuple[Volume, Volume]:
    """Strength and phase [rad] of the sensitivity of one coil; the coils lie on a spiral around the head.

    The strength falls as on the axis of a loop; the phase turns with the direction in which the
    coil is seen, as that of the transverse field of a loop does. Coils lie outside the grid, for
    the phase is singular where a coil is.
    """
    height = (2 * number + 1) / coils - 1
    azimuth = number * _GOLDEN_ANGLE
    ring = _COIL_DISTANCE_MM * np.sqrt(1 - (0.6 * height) ** 2)
    place = (ring * np.cos(azimuth), ring * np.sin(azimuth), 0.6 * _COIL_DISTANCE_MM * height)
    x, y, z = np.ix_(*((p - q).astype(np.float32) for p, q in zip(_positions(head), place, strict=True)))
    distance = x * x + y * y + z * z
    strength: Volume = (np.float32(_COIL_RADIUS_MM**2) / (distance + np.float32(_COIL_RADIUS_MM**2))) ** np.float32(1.5)
    inwards = np.cos(azimuth) * x + np.sin(azimuth) * y
    sideways = np.cos(azimuth) * y - np.sin(azimuth) * x
    turn: Volume = np.broadcast_to(np.arctan2(sideways, -inwards), strength.shape).astype(np.float32)
    return strength, turn


def phase_to_integers(phase: Volume) -> NDArray[np.uint16]:
    """Phase [rad] as a scanner stores it: 0 to 4095 for -pi up to, but not, +pi."""
    turns = np.rint(phase * np.float32(PHASE_STEPS / (2.0 * np.pi))).astype(np.int32) + PHASE_STEPS // 2
    return np.asarray(turns % PHASE_STEPS, dtype=np.uint16)


def phase_from_integers(stored: NDArray[np.uint16]) -> Volume:
    """The inverse of `phase_to_integers`, to half a step."""
    return (stored.astype(np.float32) - PHASE_STEPS // 2) * np.float32(2.0 * np.pi / PHASE_STEPS)
