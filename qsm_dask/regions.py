"""Names of regions: the side of the body in them, and a form that is safe in a column name."""

import re
from typing import Literal

Side = Literal["left", "right", ""]

_WORDS: dict[str, Side] = {"left": "left", "right": "right", "lh": "left", "rh": "right"}
_LETTERS: dict[str, Side] = {"l": "left", "r": "right"}


def split_side(name: str) -> tuple[str, Side]:
    """The structure and the side that a label's name tells.

    Words (`left`, `rh`) count anywhere in the name, single letters (`L`, `r`) only at
    its ends; a name that tells no side, or both, has none.

    Returns
    -------
    structure : lower case, words joined by underscores: `Left-Putamen` -> `putamen`.
    side : "left", "right" or "".
    """
    words = [word for word in re.split(r"[^0-9a-z]+", name.lower()) if word]
    sides = {index: _WORDS[word] for index, word in enumerate(words) if word in _WORDS}
    if not sides:
        sides = {index: _LETTERS[words[index]] for index in (0, len(words) - 1) if words and words[index] in _LETTERS}
    rest = [word for index, word in enumerate(words) if index not in sides]
    if len(sides) != 1 or not rest:
        return "_".join(words), ""
    return "_".join(rest), next(iter(sides.values()))


def column_name(name: str) -> str:
    """A label's name as the end of a column's: `Left-Putamen` -> `putamen_left`."""
    structure, side = split_side(name)
    return f"{structure}_{side}" if side else structure
