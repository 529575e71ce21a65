"""Shapes in head coordinates and their soft, partial-volume rendering on a voxel grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Window = tuple[slice, slice, slice]
Point = tuple[float, float, float]

_SAMPLE_MM = 1.2
"""Voxels longer than this, and than a quarter of a structure's thickness, are sampled several times along that axis:
a soft edge adds volume to what is thin."""


class Shape(Protocol):
    """A solid in head coordinates [mm]."""

    @property
    def thickness(self) -> float:
        """How thin it is [mm]."""

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Corners (2, 3) of a box that holds it [mm]."""

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Signed distance of points to its surface [mm], negative inside."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid.

    Attributes
    ----------
    centre, semi_axes : [mm]; the semi-axes belong to the rows of `axes`.
    axes : two directions, the first semi-axis and one in the plane of the first two;
        they need not be normalised. Without them the ellipsoid lies along x, y, z.
    """

    centre: Point
    semi_axes: Point
    axes: tuple[Point, Point] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        first = np.asarray(self.axes[0], dtype=np.float64)
        first /= np.linalg.norm(first)
        second = np.asarray(self.axes[1], dtype=np.float64)
        second = second - (second @ first) * first
        second /= np.linalg.norm(second)
        return np.stack([first, second, np.cross(first, second)])

    @property
    def thickness(self) -> float:
        """Its smallest full width [mm]."""
        return 2.0 * min(self.semi_axes)

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Corners (2, 3) of the box that just holds it [mm]."""
        reach = np.sqrt(((self._rows * np.asarray(self.semi_axes)[:, None]) ** 2).sum(axis=0))
        return np.stack([self.centre - reach, self.centre + reach])

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Signed distance to first order: exact on the surface, and what partial volume needs near it."""
        points = (x - np.float32(self.centre[0]), y - np.float32(self.centre[1]), z - np.float32(self.centre[2]))
        radius = np.zeros(np.shape(points[0]), np.float32)
        slope = np.zeros_like(radius)
        for row, semi in zip(self._rows.astype(np.float32), self.semi_axes, strict=True):
            along = (row[0] * points[0] + row[1] * points[1] + row[2] * points[2]) / np.float32(semi)
            np.square(along, out=along)
            radius += along
            along *= np.float32(1.0 / semi**2)
            slope += along
        np.sqrt(radius, out=radius)
        np.sqrt(slope, out=slope)
        return np.asarray((radius - 1.0) * radius / np.maximum(slope, np.float32(1e-6)), dtype=np.float32)

    def grown(self, by_mm: float) -> "Ellipsoid":
        """The same with longer semi-axes."""
        a, b, c = self.semi_axes
        return Ellipsoid(self.centre, (a + by_mm, b + by_mm, c + by_mm), self.axes)


@dataclass(frozen=True)
class Tube:
    """A bent tube: straight pieces between points, with a radius at each.

    Attributes
    ----------
    points : (x, y, z, radius) in order [mm].
    """

    points: tuple[tuple[float, float, float, float], ...]

    @property
    def thickness(self) -> float:
        """Its median diameter [mm]."""
        return 2.0 * float(np.median([point[3] for point in self.points]))

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Corners (2, 3) of the box that just holds it [mm]."""
        table = np.asarray(self.points)
        centre, radius = table[:, :3], table[:, 3:]
        return np.stack([(centre - radius).min(axis=0), (centre + radius).max(axis=0)])

    def distance(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Signed distance to the nearest piece, its radius interpolated along it."""
        nearest = np.full(np.shape(x), np.inf, np.float32)
        for start, stop in zip(self.points, self.points[1:], strict=False):
            a = np.asarray(start, dtype=np.float32)
            step = np.asarray(stop, dtype=np.float32) - a
            dx, dy, dz = x - a[0], y - a[1], z - a[2]
            along = (dx * step[0] + dy * step[1] + dz * step[2]) / np.float32(step[:3] @ step[:3])
            np.clip(along, 0.0, 1.0, out=along)
            dx -= along * step[0]
            dy -= along * step[1]
            dz -= along * step[2]
            gap = np.sqrt(dx * dx + dy * dy + dz * dz) - (a[3] + along * step[3])
            np.minimum(nearest, gap, out=nearest)
        return nearest

    def grown(self, by_mm: float) -> "Tube":
        """The same with larger radii."""
        return Tube(tuple((x, y, z, radius + by_mm) for x, y, z, radius in self.points))


def mirrored(shape: Ellipsoid | Tube) -> Ellipsoid | Tube:
    """The same shape on the other side of the midline (x -> -x)."""

    def flip(point: Point) -> Point:
        return (-point[0], point[1], point[2])

    if isinstance(shape, Tube):
        return Tube(tuple((-x, y, z, radius) for x, y, z, radius in shape.points))
    return Ellipsoid(flip(shape.centre), shape.semi_axes, (flip(shape.axes[0]), flip(shape.axes[1])))


def smooth_union(distances: Sequence[Volume], blend_mm: float) -> Volume:
    """Signed distance [mm] of a union whose seams are rounded over about `blend_mm`."""
    total = np.zeros_like(distances[0])
    lowest = np.minimum.reduce(list(distances))
    for distance in distances:
        total += np.exp((lowest - distance) / np.float32(blend_mm))
    union: Volume = lowest - np.float32(blend_mm) * np.log(total)
    return union


def _ramp(distance: Volume, spacing: Sequence[float]) -> Volume:
    """Fraction of a voxel inside a surface; half the sum of its edges is its mean width over all directions."""
    width = np.float32(0.5 * sum(spacing))
    inside: Volume = np.clip(np.float32(0.5) - distance / width, 0.0, 1.0)
    return inside


@dataclass(frozen=True)
class Frame:
    """The voxel grid of one subject, as head coordinates at every voxel.

    Attributes
    ----------
    x, y, z : head coordinates [mm] of each voxel centre, deformation included.
    voxel_size : spacing [mm].
    jacobian : (3, 3) mean change of head coordinates per mm along the array axes.
    """

    x: Volume
    y: Volume
    z: Volume
    voxel_size: tuple[float, float, float]
    jacobian: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Matrix size."""
        nx, ny, nz = self.x.shape
        return nx, ny, nz

    @cached_property
    def _extent(self) -> tuple[tuple[Volume, Volume], ...]:
        extents = []
        for axis, coordinate in enumerate((self.x, self.y, self.z)):
            others = tuple(other for other in range(3) if other != axis)
            extents.append((coordinate.min(axis=others), coordinate.max(axis=others)))
        return tuple(extents)

    def above(self, below: int) -> "Frame":
        """The frame without its lowest `below` slices."""
        x, y, z = (part[:, :, below:] for part in (self.x, self.y, self.z))
        return Frame(x, y, z, self.voxel_size, self.jacobian)

    def window(self, bounds: NDArray[np.float64]) -> Window | None:
        """The part of the grid that a box (2, 3) in head coordinates [mm] may touch; None if it is outside."""
        slices = []
        for axis, (lowest, highest) in enumerate(self._extent):
            reach = self.voxel_size[axis]
            inside = np.flatnonzero((highest >= bounds[0, axis] - reach) & (lowest <= bounds[1, axis] + reach))
            if inside.size == 0:
                return None
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return slices[0], slices[1], slices[2]

    def soft(self, distance: Volume) -> Volume:
        """Fraction of each voxel inside a surface, from the signed distance [mm] of its centre."""
        return _ramp(distance, self.voxel_size)

    def occupancy(self, shape: Shape, window: Window) -> Volume:
        """Fraction of each voxel of `window` inside `shape`."""
        step = max(_SAMPLE_MM, shape.thickness / 4.0)
        samples = [int(np.ceil(size / step - 1e-6)) for size in self.voxel_size]
        coordinates = [part[window] for part in (self.x, self.y, self.z)]
        if max(samples) == 1:
            return self.soft(shape.distance(coordinates[0], coordinates[1], coordinates[2]))
        offsets = [(np.arange(n) - (n - 1) / 2.0) * size / n for n, size in zip(samples, self.voxel_size, strict=True)]
        steps = np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1) @ self.jacobian.T
        fine = [
            part[..., None, None, None] + steps[..., axis].astype(np.float32) for axis, part in enumerate(coordinates)
        ]
        parts = [size / n for n, size in zip(samples, self.voxel_size, strict=True)]
        inside: Volume = _ramp(shape.distance(fine[0], fine[1], fine[2]), parts).mean(axis=(3, 4, 5), dtype=np.float32)
        return inside
