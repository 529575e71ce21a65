"""Kernels on several threads: the same bits as on one."""

import numpy as np
import pytest
import scipy.fft

from qsm_dask.kernels import jit
from qsm_dask.kernels.inversion import admm
from tests.kernels import golden


def test_one_thread_unless_a_process_says_otherwise():
    assert jit.threads() == 1
    with scipy.fft.set_workers(2):
        assert jit.threads() == 2
    assert jit.threads() == 1


@pytest.mark.parametrize(
    "stage",
    [
        "inversion.tkd",
        *(  # numba takes seconds to compile each for several threads
            pytest.param(stage, marks=pytest.mark.slow)
            for stage in (
                "inversion.rts",
                "inversion.tv",
                "inversion.ndi",
                "inversion.medi",
                "field.nonlinear_fit",
                "relaxometry.nonlinear",
            )
        ),
    ],
)
def test_threads_do_not_change_a_bit(stage):
    alone = golden.CASES[stage](stage)
    with scipy.fft.set_workers(2):
        assert golden.CASES[stage](stage) == alone


@pytest.mark.parametrize("slabs", [2, 3, 7, 9])
def test_total_variation_is_the_same_in_any_number_of_slabs(slabs, monkeypatch):
    random = np.random.default_rng(1)
    shape = (7, 5, 6)
    start = [random.standard_normal(s, dtype=np.float32) for s in (shape, shape, (3, *shape))]
    found = []
    for count in (1, slabs):
        monkeypatch.setattr(admm, "threads", lambda count=count: count)
        x, previous, dual = (array.copy() for array in start)
        sums = np.empty((shape[0], 3))
        admm.shrink(x, previous, dual, np.float32([1.0, 0.5, 2.0]), np.float32(0.6), np.float32(0.2), sums)
        found.append(np.concatenate([array.ravel() for array in (previous, dual, sums)]))
    np.testing.assert_array_equal(found[0], found[1])
