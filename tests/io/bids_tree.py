"""Small BIDS datasets, written with nibabel by hand."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (6, 5, 4)
TE = (0.004, 0.008, 0.012)
AFFINE = np.array([[1.0, 0, 0, -3], [0, 1, 0, -2], [0, 0, 2, -4], [0, 0, 0, 1]])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_image(
    path: Path, stored: NDArray[Any], *, affine: NDArray[Any] = AFFINE, slope: float = 1.0, inter: float = 0.0
) -> None:
    """Write `stored` as it is, echoes last; a reader is told to multiply by `slope` and add `inter`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(slope, inter)
    nib.save(image, path)


def signal(seed: int = 0, shape: Sequence[int] = SHAPE, echoes: int = len(TE)) -> dict[str, NDArray[np.float32]]:
    """Magnitude and a wrapped phase that fills the whole turn, (echo, x, y, z)."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(-np.pi, np.pi, (echoes, *shape)).astype(np.float32)
    phase[:, 0, 0, 0], phase[:, 1, 0, 0] = -3.141, 3.141
    return {"mag": rng.uniform(100, 900, (echoes, *shape)).astype(np.float32), "phase": phase}


def dataset(root: Path, name: str = "a small dataset") -> Path:
    write_json(root / "dataset_description.json", {"Name": name, "BIDSVersion": "1.11.1"})
    return root


def scan(
    root: Path,
    entities: str = "sub-01",
    *,
    suffix: str = "MEGRE",
    te: Sequence[float] = TE,
    parts: Iterable[str] = ("mag", "phase"),
    arrays: Mapping[str, NDArray[Any]] | None = None,
    extension: str = ".nii.gz",
    affine: NDArray[Any] = AFFINE,
    seed: int = 0,
    **metadata: Any,
) -> Path:
    """Write one acquisition, an image and a sidecar an echo and part; returns its folder.

    `metadata` goes into every sidecar beside EchoTime; MagneticFieldStrength is 3 and phase
    `Units` are rad unless given; a value of None leaves a key out.
    """
    given = dict(arrays or signal(seed, echoes=len(te)))
    common = {"MagneticFieldStrength": 3, "Units": "rad", **metadata}
    folder = root.joinpath(*(p for p in entities.split("_") if p.startswith(("sub-", "ses-"))), "anat")
    for part in parts:
        for number, time in enumerate(te, start=1):
            echo = f"_echo-{number}" if len(te) > 1 else ""
            stem = f"{entities}{echo}_part-{part}_{suffix}"
            write_image(folder / f"{stem}{extension}", given[part][number - 1], affine=affine)
            values = {"EchoTime": time, **common}
            if part != "phase":
                values.pop("Units")
            write_json(folder / f"{stem}.json", {key: value for key, value in values.items() if value is not None})
    return folder
