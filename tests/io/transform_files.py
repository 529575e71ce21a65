"""Transforms of ITK, FreeSurfer and FSL, written by hand from one matrix, and heads to move with them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def rotation(degrees: tuple[float, float, float]) -> Matrix:
    """Turn about z, then y, then x."""
    found = np.eye(3)
    for axis, angle in zip((2, 1, 0), np.deg2rad(degrees), strict=True):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        found = turn @ found
    return found


def rigid(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> Matrix:
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = rotation(degrees), shift
    return found


def write_itk(path: Path, scan_to_image: Matrix) -> None:
    """An ITK transform maps points of the fixed image, the scan, to the moving one, in LPS."""
    matrix = LPS @ scan_to_image @ LPS
    numbers = " ".join(f"{value:.12g}" for value in (*matrix[:3, :3].ravel(), *matrix[:3, 3]))
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )


def write_lta(path: Path, matrix: Matrix, source: tuple, target: tuple, kind: int = 1) -> None:
    """An LTA takes positions (kind 1) or voxels (kind 0) of its source to those of its target; grids: shape, affine."""

    def volume(shape, affine):
        size = np.linalg.norm(affine[:3, :3], axis=0)
        columns = (affine[:3, :3] / size).T
        centre = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
        texts = [" ".join(f"{value:.15e}" for value in row) for row in (size, *columns, centre)]
        return (
            f"valid = 1  # volume info valid\nfilename = some.mgz\nvolume = {shape[0]} {shape[1]} {shape[2]}\n"
            f"voxelsize = {texts[0]}\nxras   = {texts[1]}\nyras   = {texts[2]}\nzras   = {texts[3]}\n"
            f"cras   = {texts[4]}\n"
        )

    rows = "\n".join(" ".join(f"{value:.15e}" for value in row) for row in matrix)
    path.write_text(
        f"# transform file\ntype      = {kind} # LINEAR\nnxforms   = 1\nmean      = 0.0 0.0 0.0\nsigma     = 1.0\n"
        f"1 4 4\n{rows}\nsrc volume info\n{volume(*source)}dst volume info\n{volume(*target)}subject x\nfscale 0.1\n"
    )


def fsl_coordinates(shape: tuple[int, int, int], affine: Matrix) -> Matrix:
    """From voxels to what FLIRT counts in: millimetres, x reversed where the image is in neurological order."""
    scale = np.diag([*np.linalg.norm(affine[:3, :3], axis=0), 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = (shape[0] - 1) * scale[0, 0]
        return flip @ scale
    return scale


def write_fsl(path: Path, scan_to_image: Matrix, scan: tuple, image: tuple) -> None:
    """FLIRT's matrix takes coordinates of the image (-in) to those of the scan (-ref); grids: shape, affine."""
    to_scan, to_image = (fsl_coordinates(*grid) @ np.linalg.inv(grid[1]) for grid in (scan, image))
    np.savetxt(path, to_scan @ np.linalg.inv(scan_to_image) @ np.linalg.inv(to_image), fmt="%.10f")
