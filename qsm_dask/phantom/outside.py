"""What surrounds the brain: skull, scalp, face, neck and air cavities, the sources of the background field."""

import numpy as np

from qsm_dask.phantom.canvas import Canvas
from qsm_dask.phantom.shapes import Ellipsoid, Frame, Tube, Volume, mirrored, smooth_union
from qsm_dask.phantom.tissue import AIR, BONE, BRAIN, FAT, Look

_MENINGES_MM = 2.5
_SKULL_MM = 9.0
_SCALP_MM = 15.0
_FAT_MM = 4.0

_FACE = (
    Ellipsoid((0.0, 40.0, -52.0), (56.0, 44.0, 56.0)),
    Ellipsoid((0.0, 86.0, -44.0), (13.0, 16.0, 20.0)),
    Ellipsoid((82.0, -20.0, -30.0), (8.0, 13.0, 26.0)),
    Ellipsoid((-82.0, -20.0, -30.0), (8.0, 13.0, 26.0)),
    Tube(((0.0, -36.0, -50.0, 58.0), (0.0, -30.0, -150.0, 56.0))),
)
_SPINE = Tube(((0.0, -40.0, -70.0, 17.0), (0.0, -30.0, -150.0, 17.0)))
_CORD = Tube(((0.0, -36.0, -56.0, 6.0), (0.0, -34.0, -150.0, 5.0)))
_CANAL = Tube(((0.0, -36.0, -60.0, 9.0), (0.0, -34.0, -150.0, 8.0)))
_SAGITTAL_SINUS = Tube(
    (
        (0.0, 64.0, 40.0, 2.0),
        (0.0, 40.0, 66.0, 2.5),
        (0.0, 0.0, 79.5, 3.0),
        (0.0, -40.0, 79.0, 3.5),
        (0.0, -80.0, 62.0, 4.0),
        (0.0, -102.0, 32.0, 4.0),
        (0.0, -104.0, 2.0, 4.0),
    )
)
_EYE = Ellipsoid((32.0, 56.0, -34.0), (12.0, 12.0, 12.0))
_ORBIT = Tube(((32.0, 62.0, -34.0, 16.0), (20.0, 26.0, -32.0, 5.0)))
_CAVITIES: tuple[Ellipsoid | Tube, ...] = (
    Ellipsoid((0.0, 69.0, -14.0), (16.0, 5.0, 8.0)),
    Ellipsoid((0.0, 46.0, -34.0), (12.0, 18.0, 10.0)),
    Ellipsoid((0.0, 16.0, -47.0), (14.0, 12.0, 10.0)),
    Ellipsoid((27.0, 46.0, -62.0), (14.0, 15.0, 15.0)),
    Ellipsoid((-27.0, 46.0, -62.0), (14.0, 15.0, 15.0)),
    Ellipsoid((0.0, 52.0, -62.0), (8.0, 34.0, 14.0)),
    Tube(((0.0, 18.0, -64.0, 9.0), (0.0, 2.0, -90.0, 9.0), (0.0, 2.0, -150.0, 9.0))),
    Tube(((46.0, -24.0, -54.0, 5.0), (96.0, -22.0, -52.0, 4.0))),
    Tube(((-46.0, -24.0, -54.0, 5.0), (-96.0, -22.0, -52.0, 4.0))),
)
_MASTOID = Ellipsoid((58.0, -44.0, -54.0), (9.0, 12.0, 11.0))
_WALL_MM = 2.0

_MUSCLE = Look(0.0, 35.0, 0.30)
_FATTY = Look(FAT, 40.0, 0.36)
_BONY = Look(BONE, 180.0, 0.03)
_EMPTY = Look(AIR, 0.0, 0.0)
_CELLS = Look(0.5 * (AIR + BONE), 180.0, 0.02)
_HUMOUR = Look(0.0, 2.0, 0.45)


def paint_outside(canvas: Canvas, frame: Frame, hull: Volume, b0: float) -> None:
    """Paint everything but the brain on a canvas of air.

    Parameters
    ----------
    canvas : of the whole frame; changed in place.
    frame : head coordinates.
    hull : signed distance to the surface of the brain [mm].
    b0 : field strength [T].
    """
    parts = [shape.distance(frame.x, frame.y, frame.z) for shape in _FACE]
    skin = smooth_union([hull - np.float32(_SCALP_MM), *parts], 3.0)
    canvas.blend(frame.soft(skin), _FATTY)
    canvas.blend(frame.soft(skin + np.float32(_FAT_MM)), _MUSCLE)
    canvas.blend(frame.soft(hull - np.float32(_SKULL_MM)), _BONY)
    canvas.paint(frame, (_SPINE,), _BONY)
    canvas.paint(frame, (_ORBIT, mirrored(_ORBIT)), _FATTY)
    canvas.paint(frame, (_EYE, mirrored(_EYE)), _HUMOUR)
    canvas.paint(frame, [cavity.grown(_WALL_MM) for cavity in _CAVITIES], _BONY)
    canvas.paint(frame, _CAVITIES, _EMPTY)
    canvas.paint(frame, (_MASTOID, mirrored(_MASTOID)), _CELLS)
    canvas.paint(frame, (_CANAL,), BRAIN["csf"].look(b0))
    canvas.paint(frame, (_CORD,), BRAIN["white_matter"].look(b0))
    canvas.blend(frame.soft(hull - np.float32(_MENINGES_MM)), BRAIN["csf"].look(b0))
    canvas.paint(frame, (_SAGITTAL_SINUS,), BRAIN["vein"].look(b0))
