"""Physical constants, the conversions between phase, frequency and relative field, and those of axes.

The gyromagnetic ratio stands here and nowhere else.
"""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

GAMMA_MHZ_PER_T = 42.577
"""Proton gyromagnetic ratio over 2 pi [MHz/T], as the project's conventions round it."""

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From positions with x to the right and y to the front to those of ITK, whose x runs to the left and y to the back."""

Real = TypeVar("Real", float, NDArray[np.float32], NDArray[np.float64])


def hz_per_ppm(b0: float) -> float:
    """Frequency shift [Hz] of one ppm of relative field at `b0` [T]."""
    return GAMMA_MHZ_PER_T * b0


def radians_per_ppm(b0: float, te: float) -> float:
    """Phase [rad] that one ppm of relative field accrues until `te` [s] at `b0` [T]."""
    return 2.0 * math.pi * GAMMA_MHZ_PER_T * b0 * te


def hz_to_ppm(frequency: Real, b0: float) -> Real:
    """Relative field [ppm] of a frequency shift [Hz] at `b0` [T]."""
    return frequency / hz_per_ppm(b0)


def ppm_to_hz(field: Real, b0: float) -> Real:
    """Frequency shift [Hz] of a relative field [ppm] at `b0` [T]."""
    return field * hz_per_ppm(b0)


def tesla_to_ppm(field: Real, b0: float) -> Real:
    """Relative field [ppm] of a field shift [T] at `b0` [T]."""
    return field / (b0 * 1e-6)
