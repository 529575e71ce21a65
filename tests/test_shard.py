"""The parts of a job array: each item in one of them, none in two."""

import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.shard import Shard


@pytest.mark.parametrize(("items", "count"), [(10, 3), (2, 5), (0, 2), (7, 1)])
def test_every_item_is_in_one_part_and_parts_are_of_one_size(items: int, count: int) -> None:
    parts = [Shard.parse(f"{number}/{count}").of(range(items)) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", "", "1 / 4"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give i/N, the i-th of N parts counted from 1"):
        Shard.parse(text)
