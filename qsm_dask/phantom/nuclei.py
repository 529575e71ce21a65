"""Where the structures of the brain lie: shapes in MNI coordinates [mm] for the right side and the midline.

Centres and semi-axes come from published label sets (chi-separation and MuSus atlases, Tian S1, SUIT, 7TAMI);
directions are rounded from principal axes of the CIT168 labels (doi:10.1038/sdata.2018.63).
"""

from collections.abc import Mapping
from types import MappingProxyType

from qsm_dask.phantom.shapes import Ellipsoid, Tube, mirrored

_RIGHT: Mapping[str, Ellipsoid | Tube] = MappingProxyType(
    {
        "caudate": Tube(
            (
                (14.3, 22.5, 1.0, 4.8),
                (12.8, 17.0, 4.5, 7.1),
                (12.6, 12.0, 8.0, 7.0),
                (13.4, 6.0, 13.5, 5.4),
                (14.7, 0.0, 18.0, 4.2),
                (16.3, -7.0, 21.0, 3.2),
                (18.2, -16.0, 22.5, 2.5),
                (21.0, -24.0, 19.0, 2.0),
            )
        ),
        "putamen": Ellipsoid((26.1, 2.1, 0.1), (22.0, 11.5, 6.0), ((-0.32, 0.92, -0.23), (0.0, 0.24, 0.97))),
        "globus_pallidus": Ellipsoid((21.0, -3.9, -2.0), (14.4, 8.2, 5.1), ((-0.66, 0.74, -0.13), (0.1, 0.1, 0.95))),
        "accumbens": Ellipsoid((10.8, 8.4, -9.1), (5.7, 4.8, 3.3), ((-0.78, 0.0, 0.63), (0.42, 0.75, 0.51))),
        "thalamus": Ellipsoid((10.7, -18.9, 6.3), (17.0, 11.0, 10.0), ((0.35, -0.93, 0.1), (0.0, 0.1, 1.0))),
        "pulvinar": Ellipsoid((19.1, -29.3, 4.0), (8.5, 5.0, 4.5), ((0.8, -0.4, 0.45), (0.3, 0.9, 0.0))),
        "hippocampus": Tube(
            (
                (22.5, -12.0, -21.5, 7.0),
                (26.0, -19.0, -17.5, 7.0),
                (28.5, -27.0, -12.5, 6.0),
                (28.5, -34.0, -6.5, 4.8),
                (24.0, -40.0, -1.0, 3.6),
            )
        ),
        "amygdala": Ellipsoid((23.2, -4.2, -19.2), (11.9, 9.5, 6.5), ((0.2, 0.6, 0.6), (1.0, 0.0, 0.0))),
        "substantia_nigra": Ellipsoid((10.3, -18.3, -15.1), (7.9, 7.0, 2.3), ((0.0, 0.94, 0.34), (-0.7, -0.2, -0.66))),
        "red_nucleus": Ellipsoid((5.5, -18.3, -10.1), (5.3, 4.0, 3.6), ((0.0, 0.74, 0.67), (-0.6, 0.55, -0.58))),
        "subthalamic_nucleus": Ellipsoid((10.0, -11.9, -9.7), (4.7, 3.5, 1.6), ((-0.65, 0.67, -0.35), (0.4, 0.7, 0.6))),
        "dentate": Ellipsoid((14.7, -59.9, -34.3), (11.5, 9.0, 5.7), ((0.5, -0.85, 0.1), (0.6, 0.35, 0.7))),
    }
)

NUCLEI: tuple[str, ...] = tuple(_RIGHT)
"""Deep grey regions, in the order they are drawn: a later one replaces what it overlaps."""

VEINS: tuple[Tube, ...] = (
    Tube(((2.5, 2.0, 14.0, 1.0), (2.5, -12.0, 15.0, 1.2), (2.0, -26.0, 13.0, 1.5), (0.0, -36.0, 9.0, 2.0))),
    Tube(((-2.5, 2.0, 14.0, 1.0), (-2.5, -12.0, 15.0, 1.2), (-2.0, -26.0, 13.0, 1.5), (0.0, -36.0, 9.0, 2.0))),
    Tube(((0.0, -36.0, 9.0, 2.2), (0.0, -48.0, 14.0, 2.2), (0.0, -68.0, 4.0, 2.2), (0.0, -88.0, -6.0, 2.2))),
    Tube(((9.0, 30.0, 6.0, 0.9), (4.0, 24.0, 12.0, 0.9), (2.5, 10.0, 16.0, 1.0), (2.5, 2.0, 14.0, 1.1))),
    Tube(((-9.0, 30.0, 6.0, 0.9), (-4.0, 24.0, 12.0, 0.9), (-2.5, 10.0, 16.0, 1.0), (-2.5, 2.0, 14.0, 1.1))),
    Tube(((34.0, -20.0, 44.0, 0.7), (28.0, -18.0, 34.0, 0.9), (22.0, -14.0, 28.0, 1.0))),
    Tube(((-34.0, -8.0, 46.0, 0.7), (-28.0, -6.0, 36.0, 0.9), (-22.0, -4.0, 29.0, 1.0))),
    Tube(((40.0, 4.0, 62.0, 1.2), (24.0, 0.0, 72.0, 1.5), (6.0, -6.0, 78.0, 1.8))),
    Tube(((-44.0, -34.0, 60.0, 1.2), (-26.0, -38.0, 68.0, 1.5), (-6.0, -40.0, 74.0, 1.8))),
    Tube(((-40.0, 28.0, 46.0, 1.2), (-24.0, 26.0, 58.0, 1.5), (-6.0, 22.0, 68.0, 1.8))),
)
"""Internal cerebral, straight, septal, medullary and cortical veins."""

CALCIFICATION = Ellipsoid((-23.0, -40.0, 12.0), (4.0, 3.6, 3.6))
"""Calcified choroid plexus in the left atrium."""

_LATERAL_VENTRICLE = (
    Tube(
        (
            (4.6, 27.0, 3.0, 3.0),
            (5.0, 18.0, 9.0, 4.0),
            (6.0, 8.0, 15.5, 4.0),
            (7.5, -5.0, 20.5, 4.2),
            (10.0, -18.0, 21.5, 4.5),
            (15.0, -28.0, 19.5, 5.0),
            (22.5, -39.0, 13.0, 6.2),
            (24.0, -45.0, 8.0, 5.5),
            (22.0, -56.0, 6.0, 4.0),
            (19.0, -68.0, 6.0, 2.6),
        )
    ),
    Tube(((24.0, -41.0, 4.0, 4.6), (31.0, -31.0, -9.0, 2.6), (31.5, -17.0, -17.0, 2.0))),
)

VENTRICLES: tuple[Ellipsoid | Tube, ...] = (
    *_LATERAL_VENTRICLE,
    *(mirrored(part) for part in _LATERAL_VENTRICLE),
    Tube(((0.0, -24.0, -4.0, 1.2), (0.0, -34.0, -18.0, 1.2))),
    Ellipsoid((0.0, -46.0, -32.0), (7.0, 5.0, 9.0)),
)
"""Lateral ventricles, aqueduct and fourth ventricle."""

THIRD_VENTRICLE = Ellipsoid((0.0, -11.0, 1.0), (2.2, 14.0, 10.0))
"""Drawn after the thalami, which meet at the midline."""


def nucleus(region: str, side: str) -> Ellipsoid | Tube:
    """The shape of a deep grey region on the `left` or the `right`."""
    shape = _RIGHT[region]
    return shape if side == "right" else mirrored(shape)
