"""Every quantity that crosses a border between rooms: its dims, dtype, units and meaning.

A name means one thing everywhere. A pipeline may branch by giving a quantity a
suffix (`mask_strong`, `chi_ventricles`): `quantity(name)` resolves it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

NODES = ("ingest", "field", "maps", "registration", "regions", "standard")
"""The commits of one scan, in order."""

SPACE = ("x", "y", "z")
STANDARD = ("template_x", "template_y", "template_z")
"""Axes of a template's grid, which all scans share."""

COORDINATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "map": ("chi", "r2star", "r2prime", "chi_para", "chi_dia", "t2star", "swi", "field_gradient"),
        "statistic": (
            *("n", "volume_mm3", "mean", "sd", "median", "mad", "p05", "p25", "p75", "p95"),
            *("coverage", "trimmed_mean", "clipped_mean", "mass", "core_n", "core_mean", "core_median"),
            *("weighted_volume_mm3", "weighted_mean", "pv_mean"),
        ),
        "moment": ("offset", "sd", "n"),
        "property": (
            *("sign", "n", "volume_mm3", "mass", "peak", "x_mm", "y_mm", "z_mm", "elongation"),
            *("nearest_label", "distance_mm"),
        ),
    }
)
"""Labels of the dims whose length never varies; `kernels.roi` fills them in this order.

New maps and statistics go to the end: what was stored before has fewer of them.
"""


@dataclass(frozen=True)
class Quantity:
    """What a named array means.

    Attributes
    ----------
    dims, dtype, units : the contract of the array.
    meaning : one line for people.
    node : the commit in which it is made (`ingest` for what scanners and other tools deliver).
    stored : whether the commit keeps it; other arrays are kept on request (`keep:`).
    streamed : whether it comes one volume at a time, from files only: ingest reads it, a store never holds it.
    """

    dims: tuple[str, ...]
    dtype: str
    units: str
    meaning: str
    node: str
    stored: bool = True
    streamed: bool = False


def _volume(units: str, meaning: str, node: str, *, dtype: str = "float32", stored: bool = True) -> Quantity:
    return Quantity(SPACE, dtype, units, meaning, node, stored)


def _standard(units: str, meaning: str) -> Quantity:
    return Quantity(STANDARD, "float32", units, f"{meaning} on a template's grid; NaN outside the mask", "standard")


_ECHOES = ("echo", *SPACE)


def _coils(units: str, meaning: str) -> Quantity:
    return Quantity(("coil", *_ECHOES), "float32", units, meaning, "ingest", stored=False, streamed=True)


QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {
        "phase": Quantity(_ECHOES, "float32", "rad", "wrapped phase of each echo", "ingest"),
        "magnitude": Quantity(_ECHOES, "float32", "a.u.", "magnitude of each echo", "ingest"),
        "coil_phase": _coils("rad", "wrapped phase of each receive coil and echo"),
        "coil_magnitude": _coils("a.u.", "magnitude of each receive coil and echo"),
        "te": Quantity(("echo",), "float64", "s", "echo times", "ingest"),
        "b0": Quantity((), "float64", "T", "static field strength", "ingest"),
        "b0_dir": Quantity(("axis",), "float64", "1", "unit vector of B0 in array axes", "ingest"),
        "voxel_size": Quantity(("axis",), "float64", "mm", "voxel spacing", "ingest"),
        "affine": Quantity(("row", "column"), "float64", "mm", "voxel index to scanner position", "ingest"),
        "dseg": _volume("1", "label image: region number of each voxel, 0 outside", "regions", dtype="int32"),
        "probseg": Quantity(
            ("label", *SPACE), "float32", "1", "probability of each region in each voxel", "regions", stored=False
        ),
        "probseg_labels": Quantity(
            ("label",), "int64", "1", "region number of each volume of probseg", "regions", stored=False
        ),
        "t1w": Quantity(
            ("t1w_x", "t1w_y", "t1w_z"), "float32", "a.u.", "T1-weighted image of the subject, its own grid", "ingest"
        ),
        "t1w_affine": Quantity(("row", "column"), "float64", "mm", "voxel index to scanner position of t1w", "ingest"),
        "r2": _volume("1/s", "irreversible transverse relaxation rate, of spin echoes", "ingest"),
        "mask": _volume("1", "voxels trusted downstream", "field", dtype="bool"),
        "phase_quality": _volume("1", "reliability of the phase of a voxel, 0 to 1", "field", stored=False),
        "phase_offset": _volume("rad", "phase at echo time zero", "field", stored=False),
        "unwrapped_phase": Quantity(_ECHOES, "float32", "rad", "phase of each echo, unwrapped", "field", stored=False),
        "total_field": _volume("ppm", "relative field, background included", "field"),
        "field_noise": _volume("ppm", "standard deviation of the noise of the total field", "field"),
        "phase_residual": _volume("rad", "misfit of the phase, root mean square over echoes", "field", stored=False),
        "field_gradient": _volume("ppm/mm", "length of the gradient of the total field", "field", stored=False),
        "local_field": _volume("ppm", "relative field of the sources inside the mask", "field"),
        "chi": _volume("ppm", "magnetic susceptibility", "maps"),
        "chi_reference": Quantity(
            ("moment",), "float64", "ppm", "offset subtracted from chi, SD in the reference, voxels (count)", "maps"
        ),
        "r2star": _volume("1/s", "effective transverse relaxation rate", "maps"),
        "t2star": _volume("s", "effective transverse relaxation time", "maps", stored=False),
        "r2prime": _volume("1/s", "reversible transverse relaxation rate, R2* - R2", "maps"),
        "chi_para": _volume("ppm", "susceptibility of paramagnetic sources, not negative", "maps"),
        "chi_dia": _volume("ppm", "susceptibility of diamagnetic sources, not positive", "maps"),
        "swi": _volume("a.u.", "susceptibility-weighted image", "maps"),
        "swi_mip": _volume("a.u.", "minimum intensity projection of the susceptibility-weighted image", "maps"),
        "template_position": Quantity(
            ("axis", *SPACE), "float32", "mm", "position of each voxel in the space of a template", "registration"
        ),
        "t1w_from_scan": Quantity(
            ("row", "column"),
            "float64",
            "mm",
            "scanner position of the scan to that of t1w, rigid; NaN if that lies elsewhere",
            "registration",
        ),
        "chi_standard": _standard("ppm", "magnetic susceptibility"),
        "r2star_standard": _standard("1/s", "effective transverse relaxation rate"),
        "magnitude_standard": _standard("a.u.", "root mean square of the magnitude"),
        "shape_standard": Quantity(
            ("axis", *STANDARD),
            "float32",
            "mm",
            "where a scan's anatomy lies beside a template's",
            "standard",
            stored=False,
        ),
        "template_affine": Quantity(
            ("row", "column"), "float64", "mm", "voxel index of the template to position", "standard"
        ),
        "csf_reference": Quantity(
            ("moment",), "float64", "ppm", "susceptibility of the fluid in chi, its SD, voxels (count)", "regions"
        ),
        "candidates": Quantity(
            ("candidate", "property"), "float64", "ppm, mm", "calcification and microbleed candidates", "regions"
        ),
        "region_labels": Quantity(
            ("region",), "int64", "1", "label of each row of region_values; 0 is the whole mask", "regions"
        ),
        "region_values": Quantity(
            ("map", "region", "statistic"), "float64", "as the map", "statistics of each map per region", "regions"
        ),
    }
)

MOST_T1W_VOXELS = 2**25
"""What is planned for where only the matrix of the gradient echoes is known: 256x320x320 is less."""

HEADER = ("te", "b0", "b0_dir", "voxel_size", "affine")
"""What is read from headers and sidecars: plain values, not arrays of voxels."""

RAW = ("phase", "magnitude", *HEADER)
"""What every usable acquisition delivers."""

BESIDE = ("dseg", "probseg", "probseg_labels", "r2", "t1w", "t1w_affine")
"""What no step makes and derivatives may deliver."""


def base_name(name: str) -> str:
    """The quantity that `name` is, or is a branch of (`mask_strong` -> `mask`).

    Raises
    ------
    KeyError : no quantity has that name or is a prefix of it up to an underscore.
    """
    if name in QUANTITIES:
        return name
    matches = [base for base in QUANTITIES if name.startswith(base + "_") and name[len(base) + 1 :].isalnum()]
    if not matches:
        raise KeyError(name)
    return max(matches, key=len)


def quantity(name: str) -> Quantity:
    """The `Quantity` of a name or of a branch of it; see `base_name`."""
    return QUANTITIES[base_name(name)]
