"""The echoes of a series: which volume of which file is which, ordered by echo time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qsm_dask.errors import InputError, NoPhase
from qsm_dask.io.acquisition import Acquisition, Image
from qsm_dask.io.grid import same_grid
from qsm_dask.io.nifti import Header, read_header
from qsm_dask.io.sidecars import echo_times

_SAME_TE_S = 1e-5


@dataclass(frozen=True, eq=False)
class Source:
    """One file of a series, its header read and its sidecars resolved.

    Attributes
    ----------
    positions : index among the series' echoes of each of the file's volumes.
    """

    image: Image
    header: Header
    metadata: Mapping[str, Any]
    te: tuple[float, ...]
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Series:
    """The files of an acquisition in order.

    Attributes
    ----------
    te : echo times [s], ascending.
    parts : the sources by part: `mag` and `phase`, or `real` and `imag`, or `mag` alone.
    warnings : what the user should know.
    """

    te: tuple[float, ...]
    parts: Mapping[str, tuple[Source, ...]]
    warnings: tuple[str, ...]

    @property
    def first(self) -> Header:
        """The header whose grid the whole series shares."""
        return next(iter(self.parts.values()))[0].header

    @property
    def files(self) -> dict[str, list[str]]:
        """Labels of the images of each part."""
        return {part: [source.image.file.label for source in sources] for part, sources in self.parts.items()}

    @property
    def metadata(self) -> dict[str, Mapping[str, Any]]:
        """Resolved sidecar values by file."""
        return {source.image.file.label: source.metadata for part in self.parts.values() for source in part}


def choose_parts(acquisition: Acquisition, *, phase_needed: bool = True) -> tuple[str, ...]:
    """Which images to read: magnitude and phase, else real and imaginary.

    Raises
    ------
    NoPhase : there is neither a phase nor an imaginary image, and a phase is needed.
    InputError : a phase without a magnitude, or one of real and imaginary alone.
    """
    if acquisition.has("mag", "phase"):
        return ("mag", "phase")
    if acquisition.has("real", "imag"):
        return ("real", "imag")
    if acquisition.has("phase"):
        raise InputError(
            f"{acquisition}: phase images without magnitude (part-mag); add them, with the same entities otherwise"
        )
    if acquisition.has("real") or acquisition.has("imag"):
        raise InputError(f"{acquisition}: only one of part-real and part-imag is there; add the other")
    if phase_needed:
        raise NoPhase("no phase")
    return ("mag",)


def open_series(
    acquisition: Acquisition, metadata: Mapping[str, Mapping[str, Any]], *, phase_needed: bool = True
) -> Series:
    """Read the headers of an acquisition, order its echoes and check that they belong together.

    Parameters
    ----------
    acquisition : the scan.
    metadata : resolved sidecar values by the label of the file.
    phase_needed : whether a scan without phase is an error.

    Raises
    ------
    NoPhase : see `choose_parts`.
    InputError : an unreadable file, a missing EchoTime or echo, or images on different grids.
    """
    chosen = choose_parts(acquisition, phase_needed=phase_needed)
    opened = {part: [_open(image, metadata) for image in acquisition.images if image.part == part] for part in chosen}
    for sources in opened.values():
        _check_grids(opened[chosen[0]][0].header, sources)
    te = _order(opened[chosen[0]])
    for part in chosen[1:]:
        _compare(chosen[0], opened[chosen[0]], part, opened[part])
    parts = {part: tuple(_place(source, te) for source in sources) for part, sources in opened.items()}
    warnings = []
    if chosen[0] == "mag" and (acquisition.has("real") or acquisition.has("imag")):
        warnings.append("magnitude and phase are there: the real and imaginary images were left aside")
    first = parts[chosen[0]][0].header
    if told := first.doubt or first.note:
        warnings.append(told)
    return Series(te, parts, tuple(warnings))


def _open(image: Image, metadata: Mapping[str, Mapping[str, Any]]) -> Source:
    header = read_header(image.file.path, image.file.label, coils=True)
    values = metadata[image.file.label]
    return Source(image, header, values, echo_times(values, header.volumes, image.file.label))


def _check_grids(reference: Header, sources: Sequence[Source]) -> None:
    for source in sources:
        difference = same_grid(reference.grid, source.header.grid)
        if difference:
            raise InputError(f"{source.header.label}: {difference}; all images of a scan must share one grid")


def _order(sources: Sequence[Source]) -> tuple[float, ...]:
    """All echo times of a part, ascending."""
    found = sorted((te, source.header.label) for source in sources for te in source.te)
    for (one, first), (other, second) in pairwise(found):
        if other - one < _SAME_TE_S:
            raise InputError(
                f"two files claim the echo time {one:g} s: {first} and {second}; correct EchoTime or remove one"
            )
    return tuple(te for te, _ in found)


def _compare(part: str, sources: Sequence[Source], other_part: str, others: Sequence[Source]) -> None:
    """Check that two parts have the same echoes, and name the one that is missing if not."""
    numbers, other_numbers = ({source.image.echo for source in group} for group in (sources, others))
    if None not in numbers | other_numbers and numbers != other_numbers:
        lacks = other_part if numbers - other_numbers else part
        names = ", ".join(f"echo-{n}" for n in sorted((numbers - other_numbers) or (other_numbers - numbers), key=str))
        raise InputError(f"missing echo: {names} has no part-{lacks} image; restore it, or remove its counterpart")
    te, other_te = _order(sources), _order(others)
    if len(te) != len(other_te):
        raise InputError(f"missing echo: part-{part} has {len(te)} echoes, part-{other_part} has {len(other_te)}")
    for one, other in zip(te, other_te, strict=True):
        if abs(one - other) > _SAME_TE_S:
            raise InputError(
                f"EchoTime differs between part-{part} ({one:g} s) and part-{other_part} ({other:g} s) of one echo; "
                "correct the sidecars"
            )


def _place(source: Source, te: Sequence[float]) -> Source:
    positions = tuple(min(range(len(te)), key=lambda n: abs(te[n] - time)) for time in source.te)
    return Source(source.image, source.header, source.metadata, source.te, positions)
