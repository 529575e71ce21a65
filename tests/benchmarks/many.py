"""A cohort of many small scans: a few simulated heads under many names, each with noise of its own."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

import qsm_dask as qd
from qsm_dask.engine import Engine
from qsm_dask.workflow import simulate

SHAPE = (64, 64, 48)
TE = (0.006, 0.012, 0.018)
_HEADS = 4
_NOISE = 0.01
_TURN = 4096.0
"""Half a turn of phase, in the integers of the simulated files."""


def ingested(folder: Path, scans: int, engine: Engine, shape: tuple[int, int, int] = SHAPE) -> qd.CohortStore:
    """Simulate, copy and ingest.

    Parameters
    ----------
    folder : for the datasets and the cohort.
    scans : how many.
    engine : where this runs.
    shape : matrix.
    """
    heads, bids = folder / "heads", folder / "bids"
    simulate.run(heads, subjects=_HEADS, seed=0, shape=shape, te=TE, engine=engine)
    bids.mkdir()
    for name in ("dataset_description.json", "README"):
        (bids / name).write_bytes((heads / name).read_bytes())
    for outcome in engine.map(partial(_copy, heads, bids), range(scans), memory=lambda _number: 0):
        assert outcome.ok, outcome
    summary = qd.ingest(bids, folder / "cohort", engine, derivatives=[f"{bids}/derivatives/truth:dseg"])
    assert summary.done == scans, summary
    return qd.open_cohort(folder / "cohort")


def _copy(heads: Path, bids: Path, number: int) -> None:
    head, name = f"sub-{number % _HEADS + 1:02d}", f"sub-{number:05d}"
    rng = np.random.default_rng(number)
    raw, labels = heads / head / "anat", heads / simulate.TRUTH / head / "anat"
    out, out_labels = bids / name / "anat", bids / simulate.TRUTH / name / "anat"
    for made in (out, out_labels):
        made.mkdir(parents=True)
    _linked(labels.glob(f"{head}_dseg.*"), out_labels, head, name)
    _linked(raw.glob("*.json"), out, head, name)
    for echo in range(1, len(TE) + 1):
        stem = "_echo-{}_part-{}_MEGRE.nii.gz".format
        magnitude, phase = (nibabel.load(raw / f"{head}{stem(echo, part)}") for part in ("mag", "phase"))
        amplitude = np.asarray(magnitude.dataobj, np.float32)
        angle = np.asarray(phase.dataobj, np.float32) * (np.pi / _TURN)
        signal = amplitude * np.exp(1j * angle)
        noise = rng.standard_normal((2, *signal.shape), np.float32) * (_NOISE * float(amplitude.max()))
        signal += noise[0] + 1j * noise[1]
        _write(out / f"{name}{stem(echo, 'mag')}", np.abs(signal), magnitude)
        _write(out / f"{name}{stem(echo, 'phase')}", np.angle(signal) * (_TURN / np.pi), phase)


def _linked(files: Iterable[Path], folder: Path, head: str, name: str) -> None:
    for file in files:
        (folder / file.name.replace(head, name)).hardlink_to(file)


def _write(path: Path, values: NDArray[Any], like: Any) -> None:
    slope, intercept = like.dataobj.slope, like.dataobj.inter
    stored = np.clip(np.rint((values - intercept) / slope), 0, 4095).astype(np.uint16)
    image = nibabel.Nifti1Image(stored, like.affine)
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, path)
