"""The picture of a scan: a mosaic of its maps, drawn from its commits by one task."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.cohort.standing import NodeState
from qsm_dask.quantities import NODES
from qsm_dask.report.figures import Layer, mosaic, size_of
from qsm_dask.report.pages import Picture
from qsm_dask.report.planes import Orientation
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore, Commit
from qsm_dask.store.documents import REPORT, picture

DRAWING = 3
"""Raised when pictures change, so that they are drawn again."""


_MAPS = NODES[:3]
"""Nodes whose arrays are drawn; others are if they made a label image."""


@dataclass(frozen=True)
class Drawing:
    """What one task draws: a scan and the commits that its picture shows.

    Attributes
    ----------
    scan : its name.
    keys : node -> key of its commit.
    token : tells this picture from one of other results.
    voxels : of one volume.
    """

    scan: str
    keys: Mapping[str, str]
    token: str
    voxels: int

    def __str__(self) -> str:
        return self.scan

    @classmethod
    def of(cls, scan: str, geometry: Mapping[str, Any], nodes: Mapping[str, NodeState]) -> "Drawing":
        """What to draw of a scan, given the geometry of its ingest and its nodes that are done."""
        shown = {name: nodes[name] for name in NODES if name in nodes and (name in _MAPS or nodes[name].labels)}
        token = json.dumps([DRAWING, [node.digest for node in shown.values()]])
        return cls(scan, {name: node.key for name, node in shown.items()}, token, math.prod(geometry["shape"]))


def draw_scan(cohort: CohortStore, drawing: Drawing) -> dict[str, Any]:
    """Draw the mosaic of one scan and write it beside the page; the task that workers execute.

    Returns
    -------
    picture : the fields of its `Picture`.
    """
    scan = ScanKey.parse(drawing.scan)
    commits = [commit for node, key in drawing.keys.items() if (commit := cohort.commit(scan, node, key)) is not None]
    ingested = commits[0].attributes
    header = ingested["header"]
    newest = {name: commit for commit in commits for name in commit.arrays}
    mask = _volume(cohort, newest, "mask")
    layers = list(_layers(cohort, newest, mask, float(header["b0"])))
    everything = np.ones(ingested["geometry"]["shape"], dtype=np.bool_)
    png = mosaic(layers, everything if mask is None else mask, header["affine"])
    name = picture(drawing.scan)
    cohort.write_document(name, png)
    width, height = size_of(png)
    titles = tuple(" ".join(layer.title.split()) for layer in layers)
    return asdict(Picture(beside_page(name), width, height, titles, round(Orientation.of(header["affine"]).tilt, 1)))


def _volume(cohort: CohortStore, newest: Mapping[str, Commit], name: str) -> NDArray[Any] | None:
    return cohort.read(newest[name], (name,))[name] if name in newest else None


def _layers(cohort: CohortStore, newest: Mapping[str, Commit], mask: NDArray[Any] | None, b0: float) -> Iterator[Layer]:
    windows = {
        "chi": ("Susceptibility", "ppm", -0.1, 0.2),
        "chi_para": ("Paramagnetic", "ppm", 0.0, 0.15),
        "chi_dia": ("Diamagnetic", "ppm", -0.15, 0.0),
        "swi": ("Susceptibility\nweighted", "", 0.0, 1.5),
        "local_field": ("Local field", "ppm", -0.1, 0.1),
        # relaxation by iron grows with the field strength, and so does the window
        "r2star": ("R2*", "1/s", 0.0, float(round(20.0 * b0, -1))),
    }
    for name, window in windows.items():
        values = _volume(cohort, newest, name)
        if values is not None:
            yield Layer(*window, values)
    regions, chi = _volume(cohort, newest, "dseg"), _volume(cohort, newest, "chi")
    if regions is not None and chi is not None:
        yield Layer("Regions on\nsusceptibility", "", -0.1, 0.2, chi, regions=regions)
    if "magnitude" in newest:
        first = cohort.read_rows(newest["magnitude"], "magnitude", slice(0, 1))[0]
        inside = first[mask] if mask is not None and mask.any() else first
        yield Layer("Magnitude,\nfirst echo", "", 0.0, float(np.percentile(inside, 99.5)) or 1.0, first, contour=True)


def projected_memory(drawing: Drawing) -> int:
    """Eight maps, labels, a mask and what turns them into pixels [bytes]."""
    return 40 * drawing.voxels + 100_000_000


def beside_page(document: str) -> str:
    """Where a document lies, seen from the page."""
    return os.path.relpath(document, PurePosixPath(REPORT).parent)
