"""Components of masks against SciPy's labels."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.kernels.components import components


@pytest.mark.parametrize("edges", [False, True], ids=["faces", "edges"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(9, 8, 11), (1, 7, 5), (6, 1, 1)])
def test_components_are_those_that_scipy_labels(shape, share, edges):
    mask = np.random.default_rng(3).random(shape) < share
    labels, number = ndimage.label(mask, ndimage.generate_binary_structure(3, 2 if edges else 1))
    found = components(mask, edges=edges)
    assert found.sizes.tolist() == np.bincount(labels.ravel(), minlength=number + 1)[1:].tolist()
    inner = np.zeros(shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    for each in range(number):
        mine = labels == each + 1
        np.testing.assert_array_equal(found.mask(np.arange(number) == each), mine)
        assert found.at_faces[each] == (mine & ~inner).any()


def test_the_largest_are_taken_and_of_equal_ones_the_first():
    mask = np.zeros((3, 4, 9), bool)
    mask[0, 0, :2] = mask[1, 2, 3:7] = mask[2, 0, 5:7] = True
    expected = np.zeros_like(mask)
    expected[1, 2, 3:7] = True
    np.testing.assert_array_equal(components(mask).largest(), expected)
    expected[0, 0, :2] = True
    np.testing.assert_array_equal(components(mask).largest(2), expected)
