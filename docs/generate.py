"""Write the pages that the code tells by itself: `make docs`, or `python -m docs.generate` at the top of the checkout.

A test compares the pages with the code, so they cannot fall behind it.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import qsm_dask
from qsm_dask import resources
from qsm_dask.catalogue import HEAD, Description, describe

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by `make docs` from the code: change the docstrings, not this page. -->"
_FAMILIES = {
    "mask": "Masks",
    "coils": "Receive coils",
    "offset": "Phase offsets",
    "unwrap": "Unwrapping",
    "field": "Field",
    "background": "Background removal",
    "inversion": "Inversion",
    "reference": "Reference",
    "relaxometry": "Relaxometry",
    "separation": "Source separation",
    "weighting": "Susceptibility weighting",
    "anatomy": "Anatomy",
    "roi": "Region values",
}
_SHORT = 30
_DATA = {
    "QUANTITIES": "Every quantity by its name; see [Quantities](quantities.md).",
    "STAGES": "Every method by its name; see [Stages](stages.md).",
}


def pages() -> dict[str, str]:
    """Content of every page by its file name."""
    return {
        "quantities.md": _joined(_quantities()),
        "pipelines.md": _joined(_pipelines()),
        "stages.md": _joined(_stages()),
        "python.md": _joined(_python()),
    }


def _joined(parts: Iterable[str]) -> str:
    return "\n".join((_NOTE, *parts)).rstrip() + "\n"


def _quantities() -> Iterator[str]:
    yield "# Quantities\n"
    yield "Arrays that pass from one step to the next. A branch of one is named with a suffix: `mask_strong`.\n"
    known = qsm_dask.QUANTITIES
    rows = (
        (f"`{name}`", ", ".join(one.dims) or "number", one.dtype, one.units, one.meaning, one.node)
        for name, one in known.items()
    )
    yield _table(("name", "dims", "type", "units", "meaning", "node"), rows)


def _pipelines() -> Iterator[str]:
    yield "# Pipelines\n"
    yield (
        "What is shipped; `qsm-dask pipelines` tells the same in a terminal, and [Stages](stages.md) what each step "
        "does. Seconds are those of the kernels, as in [Speed and memory](speed.md); volumes are the most that stages "
        "declare to take at once, arrays between them included, in float32 arrays of the scan's matrix.\n"
    )
    for name in resources.names("pipelines"):
        pipeline = qsm_dask.Pipeline.from_yaml(name)
        yield f"## `{name}`\n"
        yield f"{_plain(pipeline.summary)}\n"
        chain = (" or ".join(f"`{step.stage}`" for step in slot) for slot in pipeline.slots)
        yield f"{', '.join(chain)}\n"


def _stages() -> Iterator[str]:
    shape = " x ".join(map(str, HEAD.shape))
    yield "# Stages\n"
    yield (
        "What a pipeline is made of; `qsm-dask stages NAME` tells the same in a terminal. Memory is the most that a "
        f"stage takes beside its inputs at default parameters, on {shape} voxels and {HEAD.echoes} echoes; a volume "
        "is one float32 array of that matrix.\n"
    )
    described = [describe(name, stage) for name, stage in sorted(qsm_dask.STAGES.items())]
    names = [one.stage.partition(".")[0] for one in described]
    for family in sorted(set(names), key=lambda name: (*_FAMILIES, name).index(name)):
        yield f"## {_FAMILIES.get(family, family)}\n"
        for one, name in zip(described, names, strict=True):
            if name == family:
                yield from _stage(one)


def _stage(one: Description) -> Iterator[str]:
    yield f"### `{one.stage}`\n"
    yield f"{one.summary}\n"
    if one.details:
        yield f"{_plain(one.details)}\n"
    reads = ", ".join(f"`{read.name}`{' (optional)' if read.optional else ''}" for read in one.reads)
    source = f"[{one.doi}](https://doi.org/{one.doi})" if one.doi else "no paper to cite"
    yield f"- reads {reads}"
    yield f"- writes {', '.join(f'`{written.name}`' for written in one.writes)}"
    yield f"- memory {one.memory_volumes:g} volumes ({one.memory_bytes / 2**20:.0f} MiB)"
    yield f"- source {source}\n"
    if one.parameters:
        rows = (
            (f"`{p.name}`", p.type, "required" if p.required else f"`{p.written}`", p.units, _plain(p.meaning))
            for p in one.parameters
        )
        yield _table(("parameter", "type", "default", "units", "meaning"), rows)


def _python() -> Iterator[str]:
    yield "# Python\n"
    yield "What `import qsm_dask as qd` offers.\n"
    for name in qsm_dask.__all__:
        thing = getattr(qsm_dask, name)
        yield f"## `{name}`\n"
        if name in _DATA:
            yield f"{_DATA[name]}\n"
            continue
        yield _code(_head(name, thing), thing)
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            for method, function in _methods(thing).items():
                yield f"### `{name}.{method}`\n"
                yield _code(_head(f"{name}.{method}", function), function)


def _methods(thing: type) -> Mapping[str, Any]:
    fields = getattr(thing, "__dataclass_fields__", {})
    names = [name for name in vars(thing) if not name.startswith("_") and name not in fields]
    own = {name: getattr(thing, name) for name in names}
    return {name: one for name, one in own.items() if inspect.isfunction(one) or inspect.ismethod(one)}


def _head(name: str, thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return f"class {name}({thing.__base__.__name__ if thing.__base__ else ''})"
    found = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    named = [p.name if p.default is p.empty else f"{p.name}={_default(p.default)}" for p in found]
    keywords = [p.kind == p.KEYWORD_ONLY for p in found]
    if True in keywords:
        named.insert(keywords.index(True), "*")
    return f"{name}({', '.join(named)})"


def _default(value: Any) -> str:
    """A default in a few characters, the same on every machine."""
    return "..." if callable(value) or len(repr(value)) > _SHORT else repr(value)


def _code(head: str, thing: Any) -> str:
    return f"```text\n{head}\n\n{inspect.getdoc(thing) or ''}\n```\n"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def _plain(text: str) -> str:
    """Text of a docstring in which Markdown would see emphasis."""
    return text.replace("*", r"\*").replace("<", "&lt;")


def main() -> None:
    """Write every page."""
    for name, content in pages().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
