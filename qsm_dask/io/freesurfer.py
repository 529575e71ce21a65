"""Names of the labels that FreeSurfer's colour table numbers; FastSurfer, SynthSeg and FSL FIRST use the same ones."""

import re
from collections.abc import Mapping
from types import MappingProxyType

CONVENTION = "FreeSurferColorLUT"

_MIDDLE = {
    14: "3rd-Ventricle", 15: "4th-Ventricle", 16: "Brain-Stem", 24: "CSF", 72: "5th-Ventricle",
    77: "WM-hypointensities", 80: "non-WM-hypointensities", 85: "Optic-Chiasm", 192: "Corpus_Callosum",
    251: "CC_Posterior", 252: "CC_Mid_Posterior", 253: "CC_Central", 254: "CC_Mid_Anterior", 255: "CC_Anterior",
}  # fmt: skip

_SIDES = {
    "Cerebral-White-Matter": (2, 41), "Cerebral-Cortex": (3, 42), "Lateral-Ventricle": (4, 43),
    "Inf-Lat-Vent": (5, 44), "Cerebellum-White-Matter": (7, 46), "Cerebellum-Cortex": (8, 47), "Thalamus": (10, 49),
    "Caudate": (11, 50), "Putamen": (12, 51), "Pallidum": (13, 52), "Hippocampus": (17, 53), "Amygdala": (18, 54),
    "Accumbens-area": (26, 58), "Substancia-Nigra": (27, 59), "VentralDC": (28, 60), "vessel": (30, 62),
    "choroid-plexus": (31, 63), "WM-hypointensities": (78, 79), "non-WM-hypointensities": (81, 82),
}  # fmt: skip
"""Structures of both sides: numbers on the left and on the right."""

_CORTEX = (
    "unknown", "bankssts", "caudalanteriorcingulate", "caudalmiddlefrontal", "corpuscallosum", "cuneus",
    "entorhinal", "fusiform", "inferiorparietal", "inferiortemporal", "isthmuscingulate", "lateraloccipital",
    "lateralorbitofrontal", "lingual", "medialorbitofrontal", "middletemporal", "parahippocampal", "paracentral",
    "parsopercularis", "parsorbitalis", "parstriangularis", "pericalcarine", "postcentral", "posteriorcingulate",
    "precentral", "precuneus", "rostralanteriorcingulate", "rostralmiddlefrontal", "superiorfrontal",
    "superiorparietal", "superiortemporal", "supramarginal", "frontalpole", "temporalpole", "transversetemporal",
    "insula",
)  # fmt: skip
"""Parcels of Desikan and Killiany, by the last two digits of their numbers."""

_FILES = re.compile(
    r"\.mg[hz]$|(?:^|[/_.-])(?:aseg|aparc|wmparc|aparcaseg|synthseg|\w*firstseg|samseg)(?=[/_.+-]|$)", re.IGNORECASE
)
"""What file names of these programs have in common."""


def names() -> Mapping[int, str]:
    """Names by number: of the aseg, of cortical parcels and of the white matter below them."""
    found = dict(_MIDDLE)
    for structure, (left, right) in _SIDES.items():
        found |= {left: f"Left-{structure}", right: f"Right-{structure}"}
    for base, tissue in ((1000, "ctx-lh"), (2000, "ctx-rh"), (3000, "wm-lh"), (4000, "wm-rh")):
        found |= {base + number: f"{tissue}-{parcel}" for number, parcel in enumerate(_CORTEX)}
    found |= {5001: "Left-UnsegmentedWhiteMatter", 5002: "Right-UnsegmentedWhiteMatter"}
    return MappingProxyType(dict(sorted(found.items())))


def follows(label: str) -> bool:
    """Whether a file by its name is of a program that numbers by this table."""
    return _FILES.search(label) is not None
