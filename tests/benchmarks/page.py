"""Puts what a benchmark measured into its part of `docs/scale.md`, between two comments that name it."""

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from qsm_dask.engine.resources import Machine, cpu_count

PAGE = "scale.md"


def put(docs: Path, part: str, lines: Sequence[str]) -> None:
    """Replace a part of the page.

    Parameters
    ----------
    docs : folder of the page.
    part : its name in the comments `<!-- part -->` and `<!-- /part -->`.
    lines : Markdown.
    """
    page = docs / PAGE
    text = page.read_text(encoding="utf-8")
    found = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", re.DOTALL)
    if not found.search(text):
        raise SystemExit(f"{page} has no part {part!r}")
    body = "\n".join([*lines, "", f"({_where()})"])
    page.write_text(found.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text), encoding="utf-8")


def _where() -> str:
    machine = Machine.here()
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} with {cpu_count()} processors, {machine.memory / 2**30:.0f} GiB and "
        f"Python {platform.python_version()}."
    )
