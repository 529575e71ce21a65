"""One part of a job array's work."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from qsm_dask.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `i/N`.

        Raises
        ------
        ConfigError : it is not two whole numbers with 1 <= i <= N.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = (int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(f"--shard {text}: give i/N, the i-th of N parts counted from 1, such as 1/8 to 8/8")
        return cls(number, count)

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item: each belongs to one shard, and shards differ by one item at most."""
        return items[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
