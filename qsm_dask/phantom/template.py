"""The phantom's own template: the mean of a few heads that differ in nothing but their furrows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom import nuclei
from qsm_dask.phantom.grid import affine_of
from qsm_dask.phantom.head import build_head
from qsm_dask.phantom.subject import draw_subject

AGE = 50.0
"""[years] In the middle of the ages that are drawn."""

HEADS = 4
_SEED = 2**31
"""A cohort of its own, which no one simulates."""


def template(shape: tuple[int, int, int], te: Sequence[float], b0: float) -> Mapping[str, NDArray[Any]]:
    """Draw the template: MNI pose, no deformation, iron of middle age, cortex blurred as by averaging people.

    Parameters
    ----------
    shape : matrix of the fixed field of view.
    te : echo times [s] of the magnitude.
    b0 : field strength [T].

    Returns
    -------
    dict : `magnitude` (root mean square over echoes, without noise), `chi` [ppm], `mask`, `dseg` with the labels of
        `DEEP_GREY` and the other tissues, and `affine`; all (x, y, z) but the last.

    Raises
    ------
    ValueError : the matrix is too small.
    """
    magnitude, chi = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for number in range(HEADS):
        drawn = draw_subject(number, _SEED, AGE, calcified=False)
        person = replace(
            drawn,
            head_from_array=np.eye(3),
            deformation_mm=0.0,
            ventricle_mm=0.025 * (AGE - 30.0),
            iron_excess=dict.fromkeys(nuclei.NUCLEI, 0.0),
        )
        head = build_head(person, shape, b0)
        squares = np.zeros(shape, np.float32)
        for time in te:
            squares += np.square(head.signal * np.exp(-np.float32(time) * head.r2star))
        magnitude += np.sqrt(squares / np.float32(len(te))) / np.float32(HEADS)
        chi += head.chi / np.float32(HEADS)
    return {
        "magnitude": magnitude,
        "chi": chi,
        "mask": head.mask,
        "dseg": head.dseg,
        "affine": affine_of(shape, np.eye(3)),
    }
