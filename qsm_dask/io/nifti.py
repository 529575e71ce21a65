"""NIfTI and MGH volumes; the one place where axes are transposed.

On disk x runs fastest and echoes come last; everywhere else arrays are `(echo, x, y, z)`
in C order. Scaled integers become float32 volume by volume, without a float64 copy.
"""

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedIOBase
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHImage, data_type_codes
from numpy.typing import ArrayLike, NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.grid import Grid, b0_direction, voxel_size

_SCANNER_CODES = (1, 2)
_PIECE = 1 << 16
_HEADER_BYTES, _MGH_HEADER_BYTES, _SNIFFED_BYTES = 348, 284, 1024
_CUT = "truncated or damaged: its header is not whole; copy or convert the file again"
_MGH_ENDINGS = (".mgh", ".mgz", ".mgh.gz")


@dataclass(frozen=True, eq=False)
class Header:
    """What an image file says of itself.

    Attributes
    ----------
    label : the name under which messages speak of it.
    path : where it lies.
    shape : matrix (x, y, z).
    volumes : number of volumes (echoes) of each coil.
    coils : number of receive coils kept apart, the fifth dimension.
    affine : voxel index to scanner position [mm].
    dtype : as stored.
    slope, inter : stored values times slope plus inter are the values meant.
    offset : bytes before the voxels.
    doubt : why its affine may not tell how the image lay in the scanner; empty where it does.
    note : what the user should know of an affine that does tell; empty where there is nothing.
    """

    label: str
    path: Path
    shape: tuple[int, int, int]
    volumes: int
    coils: int
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    doubt: str
    note: str

    @property
    def voxels(self) -> int:
        """Number of voxels of one volume."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        return Grid(self.label, self.shape, self.affine, self.doubt)

    @cached_property
    def voxel_size(self) -> NDArray[np.float64]:
        """Voxel spacing [mm], see `voxel_size`."""
        return voxel_size(self.affine, self.label)

    @cached_property
    def b0_dir(self) -> NDArray[np.float64]:
        """Direction of B0 in array axes, see `b0_direction`."""
        return b0_direction(self.affine, self.label)


def read_header(path: str | Path, label: str | None = None, *, coils: bool = False, standard: bool = False) -> Header:
    """Read the header of an image of three or four dimensions, or of five where coils may be kept apart.

    Parameters
    ----------
    path : `.nii`, `.nii.gz`, or FreeSurfer's `.mgh` or `.mgz`.
    label : the name under which messages speak of it.
    coils : whether receive coils may be kept apart.
    standard : whether the image lies in a standard space, so that its sform counts whatever its code.

    Raises
    ------
    InputError : absent, neither NIfTI nor MGH, truncated, complex or coloured, or of another shape.
    """
    path, name = Path(path), label or str(path)
    image, placed = _load(path, name)
    stored = image.dataobj  # the header of a loaded image forgets its scaling, the proxy keeps it
    shape, dtype = tuple(int(n) for n in image.shape), np.dtype(image.header.get_data_dtype())
    if len(shape) < 3 or any(n != 1 for n in shape[5 if coils else 4 :]) or min(shape) < 1:
        more = ", five with receive coils after echoes" if coils else ""
        raise InputError(f"{name}: has the shape {shape}; three dimensions are wanted, or four with echoes last{more}")
    if dtype.kind not in "iuf":
        raise InputError(f"{name}: holds {dtype} values; store real ones (part-mag and part-phase)")
    affine, doubt, note = (image.affine, "", "") if standard else _orientation(image, placed)
    return Header(
        label=name,
        path=path,
        shape=(shape[0], shape[1], shape[2]),
        volumes=shape[3] if len(shape) > 3 else 1,
        coils=shape[4] if len(shape) > 4 else 1,
        affine=np.asarray(affine, dtype=np.float64),
        dtype=dtype,
        slope=float(stored.slope),
        inter=float(stored.inter),
        offset=int(stored.offset),
        doubt=doubt,
        note=note,
    )


def _load(path: Path, name: str) -> tuple[Any, bool]:
    """Open an image, of which the header is read; and whether an MGH header says that it knows the orientation.

    Where it does not, the library puts another in its place and does not tell.
    """
    if not path.exists():
        link = " (a link whose target is absent: fetch the data)" if path.is_symlink() else ""
        raise InputError(f"{name}: no such file{link}")
    is_mgh = path.name.lower().endswith(_MGH_ENDINGS)
    placed = not is_mgh or _check_mgh(path, name)
    try:
        return nib.load(path), placed
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise InputError(f"{name}: {_fault(path)}") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{name}: cannot be read, truncated or damaged: {error}") from error


def _check_mgh(path: Path, name: str) -> bool:
    """Refuse what is MGH by its name only; tell whether its `goodRASFlag` says that its orientation is known."""
    with _open(path, name) as file:
        head = file.read(_MGH_HEADER_BYTES)
    if len(head) < _MGH_HEADER_BYTES:
        raise InputError(f"{name}: {_CUT}")
    version, *shape, kind, _, good = struct.unpack(">7ih", head[:30])
    if version != 1 or kind not in data_type_codes.code or min(shape) < 1:
        raise InputError(f"{name}: not an MGH file")
    return bool(good > 0)


def _orientation(image: Any, placed: bool) -> tuple[NDArray[np.float64], str, str]:
    """The affine that tells how the image lay in the scanner, why that may be in doubt, and what is to be told if not.

    An sform in a standard space (codes 3 to 5) tells where the head lies in an atlas, not how it lay in B0. MGH
    knows scanner positions only.
    """
    if isinstance(image, MGHImage):
        return image.affine, "" if placed else "the header states no orientation (goodRASFlag is 0)", ""
    sform, qform = int(image.header["sform_code"]), int(image.header["qform_code"])
    if sform in _SCANNER_CODES:
        return image.affine, "", ""
    if qform in _SCANNER_CODES:
        aside = f"the sform is in a standard space (code {sform}) and was left aside: B0 taken from the qform"
        return image.get_qform(), "", aside if sform else ""
    doubt = "the header states no orientation (sform and qform codes are 0): B0 taken along the third axis"
    if sform or qform:
        doubt = (
            f"the header states an orientation in a standard space only (sform code {sform}, qform code {qform}): "
            "B0 taken along its third axis, which is wrong if the head was rotated into that space"
        )
    return image.affine, doubt, ""


def read_into(header: Header, out: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> None:
    """Read all volumes one after the other into the arrays (x, y, z) of `out`, one a volume.

    Raises
    ------
    InputError : the file is truncated or damaged, or holds NaN or infinite values.
    """
    for _ in _read(header, range(header.volumes * header.coils), out):
        pass


def stream(header: Header, numbers: Iterable[int], out: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield the volumes of these numbers, ascending from 0, all in the array `out`: use one before the next.

    Echoes run faster than coils. The file is open until the last of them was taken.

    Raises
    ------
    InputError : see `read_into`.
    """
    return _read(header, numbers, repeat(out))


def read_volume(path: str | Path, label: str | None = None) -> NDArray[np.float32]:
    """Read a NIfTI file: (x, y, z), or (echo, x, y, z) where it has several volumes.

    Raises
    ------
    InputError : see `read_header` and `read_into`.
    """
    header = read_header(path, label)
    out = np.empty((header.volumes, *header.shape), dtype=np.float32)
    read_into(header, out)
    return out if header.volumes > 1 else out[0]


def read_labels(header: Header) -> NDArray[np.int32]:
    """Read a label image of one volume; labels up to 2^31 - 1 stay exact.

    Raises
    ------
    InputError : see `read_into`; or it has several volumes, fractions, or labels that are negative or too large.
    """
    if header.volumes != 1:
        raise InputError(f"{header.label}: has {header.volumes} volumes; a label image has one")
    plain = header.slope == 1.0 and header.inter == 0.0
    whole = plain and header.dtype.kind in "iu"
    exact = whole or (plain and header.dtype == np.float64)
    values = np.empty(header.shape, dtype=np.int64 if whole else np.float64 if exact else np.float32)
    read_into(header, [cast("NDArray[np.float32]", values)])
    if not whole and not np.array_equal(values, np.rint(values)):
        raise InputError(
            f"{header.label}: a label image holds whole numbers, this one has fractions; was it interpolated?"
        )
    low, high = values.min(), values.max()
    top = 2**31 if exact else 2**24
    if low < 0 or high >= top:
        why = "" if exact else f" (stored as {header.dtype}, beyond which numbers run together: store whole numbers)"
        raise InputError(
            f"{header.label}: labels must lie between 0 and {top - 1}{why}, these reach {low:g} to {high:g}"
        )
    return values.astype(np.int32)


def write_volume(
    path: str | Path, volume: NDArray[Any], affine: ArrayLike, *, scaling: tuple[float, float] | None = None
) -> None:
    """Write (x, y, z) or (echo, x, y, z) as NIfTI, echoes last, with scanner orientation.

    Booleans become 8-bit integers, 64-bit numbers 32-bit ones; the same input gives the
    same bytes. The file appears under its name only when it is complete.

    Parameters
    ----------
    path : `.nii` or `.nii.gz`.
    volume : values as they are to be stored.
    affine : voxel index to scanner position [mm].
    scaling : `scl_slope` and `scl_inter` for the header: what readers apply to the stored values.
    """
    path = Path(path)
    array = np.moveaxis(volume, 0, -1) if volume.ndim == 4 else volume
    narrow = {"bool": np.uint8, "float64": np.float32, "int64": np.int32}
    stored = array.astype(narrow.get(array.dtype.name, array.dtype))
    image = cast("Any", nib.Nifti1Image)(stored, np.asarray(affine, np.float64))
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
    ending = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    partial = path.with_name(f".{path.name.removesuffix(ending)}.partial{ending}")
    nib.save(image, partial)
    partial.replace(path)


def _fault(path: Path) -> str:
    """Tell a truncated file from one that was never NIfTI."""
    try:
        with _open(path, path.name) as file:
            if len(file.read(_SNIFFED_BYTES)) >= _HEADER_BYTES:
                return "not a NIfTI file"
    except InputError:
        pass
    return _CUT


def _read(
    header: Header, numbers: Iterable[int], targets: Iterable[NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """Read volumes into the arrays given for them; nothing as stored is held between two of them."""
    size, total, number = header.voxels * header.dtype.itemsize, header.volumes * header.coils, -1
    with _open(header.path, header.label) as file:
        for number, target in zip(numbers, targets, strict=False):
            file.seek(header.offset + number * size)
            buffer = bytearray(size)
            got = _fill(file, memoryview(buffer))
            if got < size:
                raise InputError(
                    f"{header.label}: truncated: volume {number + 1} of {total} ends after {got} of {size} "
                    "bytes; copy or convert the file again"
                )
            _scale(header, np.frombuffer(buffer, dtype=header.dtype), target)
            del buffer
            yield target
        while number == total - 1 and file.read(_PIECE):  # a compressed file tells damage at its very end only
            pass


def _scale(header: Header, raw: NDArray[Any], target: NDArray[np.float32]) -> None:
    """Turn stored values into the values meant, and refuse what is no number."""
    stored = raw.reshape(header.shape[::-1]).T
    with np.errstate(over="ignore", invalid="ignore"):
        if header.slope == 1.0:
            np.copyto(target, stored, casting="unsafe")
        else:
            np.multiply(stored, np.float32(header.slope), out=target, dtype=np.float32, casting="unsafe")
        if header.inter:
            np.add(target, np.float32(header.inter), out=target)
        finite = np.isfinite(target.min()) and np.isfinite(target.max())
    if not finite:
        broken = int(np.count_nonzero(~np.isfinite(target)))
        raise InputError(f"{header.label}: {broken} voxels are NaN or infinite; set them to 0, or reconvert the scan")


def _fill(file: BufferedIOBase, view: memoryview) -> int:
    done = 0
    while done < len(view):
        got = file.readinto(view[done : done + _PIECE])
        if not got:
            break
        done += got
    return done


@contextmanager
def _open(path: Path, label: str) -> Iterator[BufferedIOBase]:
    try:
        with path.open("rb") as raw:
            packed_by = raw.read(2)
            raw.seek(0)
            if packed_by == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as packed:
                    yield packed
            else:
                yield raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{label}: truncated or damaged: {error}; copy or convert the file again") from error
