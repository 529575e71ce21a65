"""The brain: cortex, white matter, ventricles, deep grey nuclei, veins and a calcification."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from qsm_dask.phantom import nuclei
from qsm_dask.phantom.canvas import Canvas
from qsm_dask.phantom.shapes import Ellipsoid, Frame, Tube, Volume, mirrored, smooth_union
from qsm_dask.phantom.subject import Subject
from qsm_dask.phantom.tissue import BRAIN, deep_grey

_SIDES = ("left", "right")
_OTHERS = ("white_matter", "cortex", "ventricles", "veins", "calcification")

DEEP_GREY: Mapping[int, str] = MappingProxyType(
    {
        1 + 2 * number + place: f"{region}_{side}"
        for number, region in enumerate(nuclei.NUCLEI)
        for place, side in enumerate(_SIDES)
    }
)
"""Labels of the deep grey regions."""

LABELS: Mapping[int, str] = MappingProxyType({**DEEP_GREY, **dict(enumerate(_OTHERS, 1 + len(DEEP_GREY)))})
"""Names of all labels of the label image."""

_NUMBER = {name: label for label, name in LABELS.items()}

_CEREBRUM = Ellipsoid((0.0, -17.0, 20.0), (67.0, 87.0, 58.0))
_TEMPORAL = Ellipsoid((42.0, -14.0, -20.0), (23.0, 40.0, 22.0))
_CEREBELLUM = Ellipsoid((0.0, -64.0, -36.0), (50.0, 32.0, 23.0))
_BRAINSTEM = Tube(
    ((0.0, -20.0, -8.0, 15.0), (0.0, -25.0, -25.0, 15.0), (0.0, -32.0, -45.0, 11.0), (0.0, -36.0, -58.0, 7.0))
)
_CALLOSUM = Ellipsoid((0.0, -8.0, 2.0), (44.0, 44.0, 26.0))
_INSULA = Ellipsoid((51.0, -6.0, 0.0), (16.0, 32.0, 5.0), ((1.0, 0.0, -0.25), (0.0, 1.0, 0.35)))
_SYLVIAN = Ellipsoid((52.0, -6.0, 0.0), (15.0, 31.0, 1.3), ((1.0, 0.0, -0.25), (0.0, 1.0, 0.35)))

_CORTEX_MM = 2.6
_FURROW_DEPTH_MM = 21.0


def resolved(label: int, spacing: tuple[float, float, float]) -> bool:
    """Whether a structure is at least two voxels thick, so that its mean can be compared with truth."""
    name, two_voxels = LABELS[label], 2.0 * max(spacing)
    if label in DEEP_GREY:
        region, _, side = name.rpartition("_")
        return nuclei.nucleus(region, side).thickness >= two_voxels
    thickness = {
        "white_matter": np.inf,
        "cortex": _CORTEX_MM,
        "ventricles": min(part.thickness for part in nuclei.VENTRICLES[:1]),
        "veins": max(vein.thickness for vein in nuclei.VEINS),
        "calcification": nuclei.CALCIFICATION.thickness,
    }
    return bool(thickness[name] >= two_voxels)


def hull_distances(frame: Frame) -> tuple[Volume, Volume]:
    """Signed distances [mm] to the surface of the brain, and of its part without cortex, the brainstem."""
    stem = _BRAINSTEM.distance(frame.x, frame.y, frame.z)
    parts = [_CEREBRUM, _TEMPORAL, mirrored(_TEMPORAL), _CEREBELLUM]
    return smooth_union([*(part.distance(frame.x, frame.y, frame.z) for part in parts), stem], 3.0), stem


def _sheet(level: Volume, width: float, blur: float) -> Volume:
    """Share of a voxel taken by a sheet around level 0; `blur` widens it and keeps its mass."""
    broad = float(np.hypot(width, blur))
    share: Volume = np.float32(width / broad) * np.exp(-np.square(level / np.float32(broad)))
    return share


def _white_and_furrows(frame: Frame, hull: Volume, stem: Volume, folds: Volume) -> tuple[Volume, Volume]:
    """Fractions of white matter and of the fluid in furrows.

    Furrows are the zero level of a smooth random field: sheets that branch and meet, as sulci do. One more lies
    between the hemispheres, above the corpus callosum.
    """
    voxel = max(frame.voxel_size)
    outside_stem = frame.soft(np.float32(3.0) - stem)
    shallow = frame.soft(-(hull + np.float32(_FURROW_DEPTH_MM))) * outside_stem
    midline = frame.soft(-_CALLOSUM.distance(frame.x, frame.y, frame.z)) * outside_stem
    midline *= frame.soft(-(frame.z + np.float32(14.0)))
    fluid = np.maximum(shallow * _sheet(folds, 0.13, 0.025 * voxel), midline * _sheet(frame.x, 1.0, 0.4 * voxel))
    grey = np.maximum(shallow * _sheet(folds, 0.55, 0.0), midline * _sheet(frame.x, 3.6, 0.0))
    core = np.maximum(frame.soft(hull + np.float32(_CORTEX_MM)), frame.soft(stem + np.float32(0.8)))
    return core * (1.0 - grey), fluid


def paint_brain(
    canvas: Canvas, frame: Frame, hull: Volume, stem: Volume, folds: Volume, subject: Subject, b0: float
) -> None:
    """Paint the brain on all of a canvas; the caller cuts it out along its surface.

    Parameters
    ----------
    canvas : changed in place.
    frame : head coordinates.
    hull, stem : see `hull_distances`.
    folds : random field whose zero level the furrows follow.
    subject : age, iron, ventricles and calcification.
    b0 : field strength [T].
    """
    look = {name: tissue.look(b0) for name, tissue in BRAIN.items()}
    white, fluid = _white_and_furrows(frame, hull, stem, folds)
    canvas.blend(np.ones_like(white), look["cortex"], _NUMBER["cortex"])
    canvas.blend(white, look["white_matter"], _NUMBER["white_matter"])
    canvas.paint(frame, (_INSULA, mirrored(_INSULA)), look["cortex"], _NUMBER["cortex"])
    canvas.blend(fluid, look["csf"])
    canvas.paint(frame, (_SYLVIAN, mirrored(_SYLVIAN)), look["csf"])
    wide = [part.grown(subject.ventricle_mm) for part in nuclei.VENTRICLES]
    canvas.paint(frame, wide, look["csf"], _NUMBER["ventricles"])
    for label, name in DEEP_GREY.items():
        region, _, side = name.rpartition("_")
        tissue = deep_grey(region, subject.age, subject.iron_excess[region])
        canvas.paint(frame, (nuclei.nucleus(region, side),), tissue.look(b0), label)
    third = nuclei.THIRD_VENTRICLE.grown(subject.ventricle_mm)
    canvas.paint(frame, (third,), look["csf"], _NUMBER["ventricles"])
    canvas.paint(frame, nuclei.VEINS, look["vein"], _NUMBER["veins"])
    if subject.calcified:
        canvas.paint(frame, (nuclei.CALCIFICATION,), look["calcification"], _NUMBER["calcification"])
