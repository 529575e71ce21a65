"""Images of receive coils that were not combined: found together, checked, and read one volume at a time.

A coil is a file of its own (`coil-01`, the entity that converters write and BIDS does not
have yet) or a place on the fifth axis of a file, which BIDS permits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import Acquisition
from qsm_dask.io.echoes import Series, Source, open_series
from qsm_dask.io.grid import same_grid
from qsm_dask.io.nifti import stream
from qsm_dask.io.phase import Scale, find_scale, to_polar, to_radians

_SAME_TE_S = 1e-5

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Coils:
    """The coils of a scan; `phase` and `magnitude` are what `kernels.coils` takes.

    Attributes
    ----------
    series : one a coil, or the one whose files have an axis of coils.
    scale : how stored phase becomes radians; None for real and imaginary images.
    sign : of the phase, +1 or -1.
    low, high : the smallest and the largest stored phase.
    """

    series: tuple[Series, ...]
    scale: Scale | None
    sign: int
    low: float
    high: float

    @property
    def count(self) -> int:
        """How many coils there are."""
        return len(self.series) * self.series[0].first.coils

    def phase(self, echoes: int) -> Iterator[Volume]:
        """Wrapped phase [rad] of the first echoes of every coil, each in the same array.

        Raises
        ------
        InputError : a file is damaged.
        """
        if self.scale is None:
            for real, imaginary in self._complex(echoes):
                to_polar(real[np.newaxis], imaginary[np.newaxis], self.sign)
                yield imaginary
            return
        for volume in self._volumes("phase", echoes):
            to_radians(volume[np.newaxis], self.scale, self.sign)
            yield volume

    def magnitude(self, echoes: int) -> Iterator[Volume]:
        """Magnitude of the first echoes of every coil, each in the same array.

        Raises
        ------
        InputError : a file is damaged or holds nothing.
        """
        if self.scale is None:
            for real, imaginary in self._complex(echoes):
                to_polar(real[np.newaxis], imaginary[np.newaxis], self.sign)
                yield real
            return
        yield from self._volumes("mag", echoes)

    def _volumes(self, part: str, echoes: int) -> Iterator[Volume]:
        return (volume for series in self.series for volume in volumes(series, part, echoes))

    def _complex(self, echoes: int) -> Iterator[tuple[Volume, Volume]]:
        return zip(self._volumes("real", echoes), self._volumes("imag", echoes), strict=True)


def open_coils(
    acquisition: Acquisition, metadata: Mapping[str, Mapping[str, Any]], *, phase_needed: bool = True
) -> tuple[Series, ...]:
    """The series of an acquisition: one, or one for each coil that has files of its own.

    Raises
    ------
    NoPhase, InputError : see `open_series`; or the coils do not belong together.
    """
    opened = []
    for coil in acquisition.coils:
        images = tuple(image for image in acquisition.images if image.coil == coil)
        opened.append(open_series(replace(acquisition, images=images), metadata, phase_needed=phase_needed))
    first = opened[0]
    for series in opened:
        difference = same_grid(first.first.grid, series.first.grid)
        if difference:
            raise InputError(f"{series.first.label}: {difference}; all images of a scan must share one grid")
        _check_times(first, series)
        _check_axis(series, len(opened) > 1)
    return tuple(opened)


def check_coils(series: tuple[Series, ...], sign: int) -> Coils:
    """Read the phase of every coil once, so that what its numbers mean is found from all of them together.

    Raises
    ------
    InputError : a file is damaged or holds nothing, there is no phase, or its units cannot be told.
    """
    parts = list(series[0].parts)
    if parts == ["mag"]:
        raise InputError(f"{series[0].first.label}: magnitudes of single coils without phase cannot be combined")
    if parts == ["real", "imag"]:
        for part in parts:
            check_signed(series[0].parts[part][0], _range(series, part)[0])
        return Coils(series, None, sign, -np.pi, np.pi)
    low, high = _range(series, "phase")
    sources = [source for one in series for source in one.parts["phase"]]
    return Coils(series, scale_of(sources, low, high), sign, low, high)


def scale_of(sources: Sequence[Source], low: float, high: float) -> Scale:
    """What a turn of phase is in these files, whose smallest and largest values are given.

    Raises
    ------
    InputError : see `find_scale`.
    """
    units = {source.image.file.label: source.metadata.get("Units") for source in sources}
    headers = [source.header for source in sources]
    return find_scale(units, low, high, [(h.slope, h.inter, h.dtype.kind in "iu") for h in headers])


def check_signed(source: Source, low: float) -> None:
    """Refuse a real or imaginary part whose smallest value is not negative.

    Raises
    ------
    InputError : it has no negative values.
    """
    if low >= 0:
        raise InputError(
            f"{source.header.label}: part-{source.image.part} has no negative values; it was stored with an "
            "offset: set scl_slope and scl_inter, or convert it again"
        )


def volumes(series: Series, part: str, echoes: int) -> Iterator[Volume]:
    """The first echoes of every coil of a series, coil by coil, each in the same array.

    Raises
    ------
    InputError : a file is damaged, or holds one value everywhere.
    """
    out = np.empty(series.first.shape, np.float32)
    held = {place: source for source in series.parts[part] for place in source.positions}
    readers = {source: stream(source.header, _numbers(source, echoes), out) for source in series.parts[part]}
    for _ in range(series.first.coils):
        for echo in range(echoes):
            source = held[echo]
            volume = next(readers[source])
            if volume.min() == volume.max():
                raise InputError(f"{source.header.label}: is {volume.flat[0]:g} everywhere; was the scan cut short?")
            yield volume
    for reader in readers.values():  # reads a compressed file to its end, and closes it
        next(reader, None)


def _numbers(source: Source, echoes: int) -> Iterator[int]:
    wanted = [index for index, place in enumerate(source.positions) if place < echoes]
    return (coil * source.header.volumes + index for coil in range(source.header.coils) for index in wanted)


def _range(series: tuple[Series, ...], part: str) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for one in series:
        for volume in volumes(one, part, len(one.te)):
            low, high = min(low, float(volume.min())), max(high, float(volume.max()))
    return low, high


def _check_times(first: Series, series: Series) -> None:
    same = len(first.te) == len(series.te) and list(first.parts) == list(series.parts)
    if not same or any(abs(a - b) > _SAME_TE_S for a, b in zip(first.te, series.te, strict=True)):
        raise InputError(
            f"{series.first.label}: the coil's echo times {list(series.te)} are not those of {first.first.label}, "
            f"{list(first.te)}; correct EchoTime, or restore the echo"
        )


def _check_axis(series: Series, own_files: bool) -> None:
    count = series.first.coils
    for source in (source for sources in series.parts.values() for source in sources):
        label = source.header.label
        if source.header.coils != count:
            raise InputError(f"{label}: has {source.header.coils} coils, {series.first.label} has {count}")
        if count > 1 and own_files:
            raise InputError(f"{label}: coils are files of their own, and this one has a fifth axis of {count}")
        if count > 1 and any(b < a for a, b in pairwise(source.positions)):
            raise InputError(f"{label}: echoes of a file with several coils must stand in the order of EchoTime")
