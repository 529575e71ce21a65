"""How messages name many things."""

from collections.abc import Sequence


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
