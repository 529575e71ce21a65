"""Reading the transforms of other tools: where a position in a scan lies in an image that was registered to it.

Files are read by nitransforms (MIT). What is expected is the transform that resamples the image onto the scan: what
`antsApplyTransforms -r scan -i image -t FILE`, `flirt -in image -ref scan -applyxfm -init FILE` or
`mri_vol2vol --mov image --targ scan --lta FILE` are given. An LTA tells by its volumes which way it leads.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.grid import Grid, same_grid
from qsm_dask.kernels.resample import sample

Points = NDArray[np.float64]

FORMATS = (".lta", ".txt", ".tfm", ".mat", ".h5", ".nii.gz", ".nii")
_TEXT_MATRIX = re.compile(rb"^\s*(?:[-+.0-9eE]+[ \t]*){4}[\r\n]")


@dataclass(frozen=True, eq=False)
class Field:
    """Displacements [mm]: (axis, x, y, z) float32, none beyond the outermost voxel centres, and their affine."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Transform:
    """From a position in a scan to that in an image: matrices (4, 4) and fields, the first first.

    Attributes
    ----------
    parts : what is done to a position, in order.
    how : which way a file was read, for the provenance.
    """

    parts: tuple[NDArray[np.float64] | Field, ...]
    how: str

    def __call__(self, points: Points) -> Points:
        """Positions (axis, x, y, z) [mm] in the image of those in the scan."""
        for part in self.parts:
            if isinstance(part, Field):
                at = np.ascontiguousarray(points, dtype=np.float32)
                points = points + np.stack([sample(values, part.affine, at) for values in part.values])
            else:
                points = np.tensordot(part[:3, :3], points, axes=1) + part[:3, 3].reshape(3, 1, 1, 1)
        return points


def read_transform(path: Path, label: str, scan: Grid, image: Grid) -> Transform:
    """Read a transform that resamples an image onto a scan.

    Parameters
    ----------
    path : LTA (`.lta`), ITK (`.txt`, `.tfm`, `.mat`, `.h5`, or a field of displacements `.nii.gz`), FSL (`.mat`).
    label : the name under which messages speak of it.
    scan, image : the grids between which it leads; an FSL matrix counts from both.

    Raises
    ------
    InputError : nitransforms is not installed, or the file cannot be read, is of another kind, or is an LTA between
        other volumes.
    """
    ending = next((one for one in FORMATS if path.name.lower().endswith(one)), None)
    if ending is None:
        raise InputError(f"{label}: no transform that can be read; give one of {', '.join(FORMATS)}")
    with _explained(label):
        if ending == ".lta":
            return _read_lta(path, label, scan, image)
        if ending == ".h5":
            return _read_composite(path)
        if ending in (".nii", ".nii.gz"):
            field = import_module("nitransforms.io.itk").ITKDisplacementsField.from_filename(path)
            return Transform((_field(field),), "ITK displacements")
        content = path.read_bytes()
        if _TEXT_MATRIX.match(content):
            return _read_fsl(content, scan, image)
        return _read_itk(path, binary=ending == ".mat")


@contextmanager
def _explained(label: str) -> Iterator[None]:
    """What goes wrong in a library's reader, as an error of the file."""
    try:
        import_module("nitransforms")
    except ImportError as error:
        raise InputError(f"{label}: to read transforms install qsm-dask[anatomy]") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how fields call themselves, of which a user can do nothing
            yield
    except InputError:
        raise
    except Exception as error:  # a reader that splits text and asserts fails in any way
        reason = str(error) or type(error).__name__
        raise InputError(f"{label}: is no transform that nitransforms reads: {reason}") from error


def _checked(matrix: Any) -> NDArray[np.float64]:
    found = np.asarray(matrix, dtype=np.float64)
    if found.shape != (4, 4) or not np.isfinite(found).all() or abs(np.linalg.det(found[:3, :3])) < 1e-6:
        raise ValueError("its matrix cannot be inverted")
    return found


def _read_lta(path: Path, label: str, scan: Grid, image: Grid) -> Transform:
    module: Any = import_module("nitransforms.io.lta")
    read = module.FSLinearTransform.from_string(path.read_text(encoding="utf-8", errors="replace"))
    source, target = (_volume(f"{label} ({name})", read[name]) for name in ("src", "dst"))
    backward = _checked(read.to_ras())  # from the target's positions to the source's
    if _alike(target, scan) or (_alike(source, image) and not _alike(source, scan)):
        return Transform((backward,), "LTA")
    if _alike(source, scan) or _alike(target, image):
        return Transform((_checked(np.linalg.inv(backward)),), "LTA, inverted")
    raise InputError(
        f"{label}: leads from a volume of {source.shape} voxels to one of {target.shape} that are neither the scan "
        f"{scan.shape} nor {image.label} {image.shape}: give the transform between these two"
    )


def _volume(label: str, geometry: Any) -> Grid:
    if int(geometry["valid"]) != 1:
        raise InputError(f"{label}: its volume is not valid, so that nobody knows which way it leads: write it anew")
    x, y, z = (int(n) for n in geometry["volume"])
    return Grid(label, (x, y, z), np.asarray(geometry.as_affine(), dtype=np.float64), "")


def _alike(one: Grid, other: Grid) -> bool:
    """Whether two volumes are one, as far as the digits of a text file tell."""
    return same_grid(one, other, tolerance=0.1) is None


def _read_fsl(content: bytes, scan: Grid, image: Grid) -> Transform:
    module: Any = import_module("nitransforms.io.fsl")
    read = module.FSLLinearTransform.from_string(content.decode())
    moving, reference = (SimpleNamespace(affine=one.affine, shape=one.shape) for one in (image, scan))
    return Transform((_checked(read.to_ras(moving=moving, reference=reference)),), "FSL")


def _read_itk(path: Path, *, binary: bool) -> Transform:
    module: Any = import_module("nitransforms.io.itk")
    if binary:
        return Transform((_checked(module.ITKLinearTransform.from_filename(path).to_ras()),), "ITK")
    listed = module.ITKLinearTransformArray.from_filename(path).xforms
    if len(listed) != 1:  # several are a composite for some programs, and one a volume for others
        raise ValueError(f"it holds {len(listed)}: write them as one affine transform, or as a composite .h5")
    return Transform((_checked(listed[0].to_ras()),), "ITK")


def _read_composite(path: Path) -> Transform:
    module: Any = import_module("nitransforms.io.itk")
    parts = [
        _checked(one.to_ras()) if isinstance(one, module.ITKLinearTransform) else _field(one)
        for one in module.ITKCompositeH5.from_filename(path)
    ]
    return Transform(tuple(reversed(parts)), "ITK composite")


def _field(image: Any) -> Field:
    values = np.moveaxis(np.asarray(image.dataobj, dtype=np.float32), -1, 0)
    if values.ndim != 4 or values.shape[0] != 3 or not np.isfinite(values).all():
        raise ValueError(f"its displacements have the shape {values.shape}, or are not finite")
    return Field(np.ascontiguousarray(values), np.asarray(image.affine, dtype=np.float64))
