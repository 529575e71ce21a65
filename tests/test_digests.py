"""Digests: what counts as equal content."""

import numpy as np
import pytest

from qsm_dask.digests import canonical, digest_of, digest_of_array


def test_the_order_of_keys_does_not_count_and_everything_else_does() -> None:
    assert digest_of({"a": 1, "b": [0.1, None]}) == digest_of({"b": [0.1, None], "a": 1})
    different = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": True}, ["a", 1], {"a": [1]}]
    assert len({digest_of(value) for value in different}) == len(different)


def test_a_number_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical([float("nan")])


def test_dtype_and_shape_of_an_array_count_and_its_memory_layout_does_not() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest_of_array(array) == digest_of_array(np.asfortranarray(array))
    others = [array, array.reshape(3, 2), array.view(np.int32), array.T]
    assert len({digest_of_array(other) for other in others}) == len(others)
