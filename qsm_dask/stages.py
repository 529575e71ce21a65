"""The table of methods: one line a method, and what its signature says of it.

A kernel's signature is the schema. Positional-only arguments are quantities, matched
by name (with a default of None: optional); keyword-only arguments are parameters, and
their names, types and defaults are the YAML.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, get_type_hints

from qsm_dask.anatomy.extraction import bet, deepbet
from qsm_dask.anatomy.labels import labels, probabilities
from qsm_dask.anatomy.registration import register
from qsm_dask.anatomy.standard import standard
from qsm_dask.anatomy.structural import align_t1w
from qsm_dask.applies import three_dimensions, three_echoes, three_equispaced_echoes, two_echoes
from qsm_dask.atlas import Part
from qsm_dask.kernels import (
    coils,
    decay,
    fieldfit,
    fieldmap,
    masking,
    offsets,
    reference,
    relaxometry,
    roi,
    separation,
    weighting,
)
from qsm_dask.kernels.background.fitted import ismv, resharp
from qsm_dask.kernels.background.harperella import harperella
from qsm_dask.kernels.background.lbv import lbv
from qsm_dask.kernels.background.pdf import pdf
from qsm_dask.kernels.background.smv import sharp, vsharp
from qsm_dask.kernels.background.tfi import tfi
from qsm_dask.kernels.bipolar import bipolar
from qsm_dask.kernels.candidates import candidates
from qsm_dask.kernels.inversion.direct import tikhonov, tkd, tsvd
from qsm_dask.kernels.inversion.fansi import fansi
from qsm_dask.kernels.inversion.hdqsm import hdqsm
from qsm_dask.kernels.inversion.ilsqr import ilsqr
from qsm_dask.kernels.inversion.l1 import l1
from qsm_dask.kernels.inversion.medi import medi
from qsm_dask.kernels.inversion.ndi import ndi
from qsm_dask.kernels.inversion.rts import rts
from qsm_dask.kernels.inversion.star import star
from qsm_dask.kernels.inversion.tgv import tgv
from qsm_dask.kernels.inversion.tv import tv
from qsm_dask.kernels.inversion.two_pass import two_pass
from qsm_dask.kernels.inversion.whqsm import whqsm
from qsm_dask.kernels.segmented import segmentation
from qsm_dask.kernels.unwrap.laplacian import laplacian
from qsm_dask.kernels.unwrap.romeo import romeo
from qsm_dask.memory import (
    boundary_value,
    carried_labels,
    carried_probabilities,
    closed_labels,
    coil_combination,
    descent,
    division,
    fitted_sphere,
    fluid_reference,
    grown_surface,
    inner_sources,
    largest_sphere,
    morphology,
    network_activations,
    offset_removal,
    outer_dipoles,
    primal_dual,
    readout_removal,
    region_reference,
    registration,
    rigid_alignment,
    smallest_field,
    spanning_tree,
    split_field,
    split_rest,
    split_slopes,
    standard_maps,
    streak_removal,
    total_variation,
    two_levels,
    two_sources,
    volumes,
    whole_brain_reference,
)
from qsm_dask.scan import Geometry

Memory = Callable[[Geometry, Mapping[str, Any]], int]
"""Peak bytes a stage takes beside its inputs, from the geometry and the resolved parameters."""

Applies = Callable[[Geometry], str | None]
"""Why a stage cannot run on a scan of this geometry, or None if it can."""


def always(geometry: Geometry) -> str | None:
    """A method that no geometry rules out."""
    del geometry
    return None


@dataclass(frozen=True)
class Stage:
    """A method: a kernel, what it returns, what it costs and where it comes from.

    Attributes
    ----------
    kernel : pure function; its signature is the schema.
    outputs : names of the quantities it returns, the one it exists for first. A `Solved` or a `Told` may follow
        them: the one goes to the provenance, the other to the facts too.
    memory : peak bytes beside its inputs.
    cite : DOI of the method, empty where there is none to cite.
    version : bumped whenever results change, so that stored results are recomputed.
    applies : why it cannot run on a geometry, if it cannot.
    atlases : parameters that name an atlas, and which part of it is read. The kernel is handed that part; digests
        depend on its content, not on the name; `memory` is given the number of its voxels.
    packages : modules of others that it imports, with the extra of qsm-dask that brings each.
    chosen_packages : those that it imports for a value of a parameter only, by parameter and value.
    serves : whether its result is of use to other steps only: it runs where one takes it in, or a pipeline keeps it.
    """

    kernel: Callable[..., Any]
    outputs: tuple[str, ...]
    memory: Memory
    cite: str = ""
    version: int = 1
    applies: Applies = always
    atlases: Mapping[str, Part] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    chosen_packages: Mapping[str, Mapping[Any, Mapping[str, str]]] = field(default_factory=dict)
    serves: bool = False

    def __repr__(self) -> str:
        """What it makes of what."""
        return f"Stage({self.kernel.__name__}: {', '.join(self.inputs)} -> {', '.join(self.outputs)})"

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.kernel)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Every quantity it reads, in order."""
        found = self._signature.parameters.values()
        return tuple(p.name for p in found if p.kind is p.POSITIONAL_ONLY)

    @cached_property
    def optional(self) -> frozenset[str]:
        """The quantities it can do without."""
        found = self._signature.parameters.values()
        return frozenset(p.name for p in found if p.kind is p.POSITIONAL_ONLY and p.default is not p.empty)

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Parameter names with their defaults."""
        found = self._signature.parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def types(self) -> Mapping[str, Any]:
        """Parameter names with their types."""
        hints = get_type_hints(self.kernel)
        return {name: str if name in self.atlases else hints[name] for name in self.parameters}

    def needs(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        """Modules of others that it imports with these parameters, with the extra of qsm-dask that brings each."""
        chosen = [options.get(parameters[name], {}) for name, options in self.chosen_packages.items()]
        return {module: extra for one in (self.packages, *chosen) for module, extra in one.items()}

    @property
    def summary(self) -> str:
        """The first line of the kernel's docstring."""
        return (inspect.getdoc(self.kernel) or "").partition("\n")[0]


ANATOMY: Mapping[str, Stage] = MappingProxyType(
    {
        "anatomy.align_t1w": Stage(
            align_t1w,
            ("t1w_from_scan",),
            rigid_alignment,
            "10.1016/S0031-3203(98)00091-0",
            applies=three_dimensions,
            packages={"picsl_greedy": "anatomy", "SimpleITK": "anatomy"},
            serves=True,
        ),
        "anatomy.register": Stage(
            register,
            ("template_position",),
            registration,
            "10.1016/j.media.2007.06.004",
            applies=three_dimensions,
            atlases={"template": "template"},
            chosen_packages={
                "method": {"greedy": {"picsl_greedy": "anatomy", "SimpleITK": "anatomy"}, "ants": {"ants": "ants"}}
            },
        ),
        "mask.bet": Stage(
            bet,
            ("mask",),
            grown_surface,
            "10.1002/hbm.10062",
            applies=three_dimensions,
            packages={"brainextractor": "anatomy"},
        ),
        "anatomy.standard": Stage(
            standard,
            ("chi_standard", "r2star_standard", "magnitude_standard", "template_affine", "shape_standard"),
            standard_maps,
            applies=three_dimensions,
            atlases={"template": "grid"},
        ),
        "mask.deepbet": Stage(
            deepbet,
            ("mask",),
            network_activations,
            "10.48550/arXiv.2308.07003",
            applies=three_dimensions,
            packages={"deepbet": "deepbet", "torch": "deepbet"},
        ),
        "anatomy.labels": Stage(labels, ("dseg",), carried_labels, version=3, atlases={"atlas": "regions"}),
        "anatomy.probabilities": Stage(
            probabilities, ("dseg", "probseg", "probseg_labels"), carried_probabilities, atlases={"atlas": "regions"}
        ),
    }
)
"""What adapts other people's tools: not pure functions of NumPy alone, as all others are."""

STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "mask.magnitude": Stage(masking.magnitude, ("mask",), volumes(1.9), "10.1109/TSMC.1979.4310076"),
        "mask.phase_quality": Stage(
            masking.phase_quality, ("mask", "phase_quality"), volumes(2.2), "10.1002/mrm.28563"
        ),
        "mask.field_quality": Stage(masking.field_quality, ("mask",), volumes(2.2), "10.1002/mrm.29048"),
        "mask.segmentation": Stage(segmentation, ("mask",), closed_labels),
        "mask.combine": Stage(masking.combine, ("mask",), volumes(0.3)),
        "mask.erode": Stage(masking.erode, ("mask",), volumes(0.75)),
        "coils.mcpc3ds": Stage(
            coils.mcpc3ds, ("phase", "magnitude"), coil_combination, "10.1002/mrm.26963", applies=two_echoes
        ),
        "offset.mcpc3ds": Stage(
            offsets.mcpc3ds, ("phase", "phase_offset"), offset_removal, "10.1002/mrm.26963", applies=two_echoes
        ),
        "offset.bipolar": Stage(
            bipolar, ("phase",), readout_removal, "10.1002/mrm.26963", applies=three_equispaced_echoes
        ),
        "unwrap.romeo": Stage(romeo, ("unwrapped_phase",), spanning_tree, "10.1002/mrm.28563"),
        "unwrap.laplacian": Stage(laplacian, ("unwrapped_phase",), volumes(1.2, series=1), "10.1364/OL.28.001194"),
        "field.weighted_mean": Stage(
            fieldmap.weighted_mean, ("total_field", "field_noise"), volumes(2.2), "10.1002/nbm.3601", version=2
        ),
        "field.linear_fit": Stage(
            fieldfit.linear_fit,
            ("total_field", "field_noise", "phase_residual"),
            volumes(3.2),
            "10.1002/nbm.3601",
            applies=two_echoes,
        ),
        "field.nonlinear_fit": Stage(
            fieldfit.nonlinear_fit,
            ("total_field", "field_noise", "phase_residual"),
            volumes(8.8),
            "10.1002/mrm.24272",
            applies=two_echoes,
        ),
        "background.harperella": Stage(harperella, ("local_field", "mask"), smallest_field, "10.1002/nbm.3056"),
        "background.lbv": Stage(lbv, ("local_field", "mask"), boundary_value, "10.1002/nbm.3064", version=4),
        "background.pdf": Stage(pdf, ("local_field", "mask"), outer_dipoles, "10.1002/nbm.1670", version=2),
        "background.tfi": Stage(tfi, ("local_field", "mask"), inner_sources, "10.1002/mrm.26331", version=3),
        "background.sharp": Stage(
            sharp, ("local_field", "mask"), largest_sphere, "10.1016/j.neuroimage.2010.10.070", version=2
        ),
        "background.resharp": Stage(resharp, ("local_field", "mask"), fitted_sphere, "10.1002/mrm.24765", version=2),
        "background.ismv": Stage(ismv, ("local_field", "mask"), fitted_sphere, "10.1002/mrm.24998", version=2),
        "background.vsharp": Stage(vsharp, ("local_field", "mask"), largest_sphere, "10.1002/mrm.23000", version=3),
        "inversion.tkd": Stage(tkd, ("chi",), division, "10.1002/mrm.22135", version=2),
        "inversion.tsvd": Stage(tsvd, ("chi",), division, "10.1002/mrm.22334", version=2),
        "inversion.tikhonov": Stage(tikhonov, ("chi",), division, "10.1002/jmri.24365"),
        "inversion.tv": Stage(tv, ("chi",), total_variation, "10.1002/mrm.25029", version=2),
        "inversion.rts": Stage(rts, ("chi",), total_variation, "10.1016/j.neuroimage.2017.11.018", version=2),
        "inversion.fansi": Stage(fansi, ("chi",), split_slopes, "10.1002/mrm.27073", version=2),
        "inversion.hdqsm": Stage(hdqsm, ("chi",), split_field, "10.1002/mrm.29218", version=3),
        "inversion.ilsqr": Stage(ilsqr, ("chi",), streak_removal, "10.1016/j.neuroimage.2014.12.043"),
        "inversion.l1": Stage(l1, ("chi",), split_field, "10.1002/mrm.28957", version=2),
        "inversion.medi": Stage(medi, ("chi",), morphology, "10.1016/j.neuroimage.2011.08.082", version=2),
        "inversion.ndi": Stage(ndi, ("chi",), descent, "10.1002/nbm.4271", version=2),
        "inversion.star": Stage(star, ("chi",), two_levels, "10.1002/nbm.3383"),
        "inversion.tgv": Stage(tgv, ("chi", "mask"), primal_dual, "10.1016/j.neuroimage.2015.02.041"),
        "inversion.two_pass": Stage(two_pass, ("chi",), volumes(1.35), "10.1002/mrm.29048"),
        "inversion.whqsm": Stage(whqsm, ("chi",), split_rest, "10.1002/mrm.27483", version=2),
        "reference.whole_brain": Stage(
            reference.whole_brain, ("chi", "chi_reference"), whole_brain_reference, "10.1002/mrm.30006"
        ),
        "reference.region": Stage(reference.region, ("chi", "chi_reference"), region_reference, "10.1002/mrm.30006"),
        "reference.csf": Stage(reference.csf, ("csf_reference",), fluid_reference, "10.1002/mrm.26946"),
        "relaxometry.arlo": Stage(
            relaxometry.arlo, ("r2star",), volumes(1.1), "10.1002/mrm.25137", applies=three_equispaced_echoes, version=2
        ),
        "relaxometry.loglinear": Stage(relaxometry.loglinear, ("r2star",), volumes(1.1), applies=two_echoes),
        "relaxometry.nonlinear": Stage(
            decay.nonlinear, ("r2star",), volumes(1.2), "10.1002/mrm.1910340618", applies=three_echoes
        ),
        "relaxometry.r2prime": Stage(decay.r2prime, ("r2prime",), volumes(1.35), "10.1016/j.neuroimage.2021.118371"),
        "relaxometry.t2star": Stage(decay.t2star, ("t2star",), volumes(1.1)),
        "separation.r2prime": Stage(
            separation.r2prime, ("chi_para", "chi_dia"), two_sources, "10.1016/j.neuroimage.2021.118371"
        ),
        "separation.r2star": Stage(separation.r2star, ("chi_para", "chi_dia"), two_sources, "10.1111/jon.13014"),
        "weighting.swi": Stage(weighting.swi, ("swi",), volumes(6.9, series=1), "10.1016/j.neuroimage.2021.118175"),
        "weighting.mip": Stage(weighting.mip, ("swi_mip",), volumes(1.1), "10.1016/j.neuroimage.2021.118175"),
        **ANATOMY,
        "roi.statistics": Stage(roi.statistics, ("region_labels", "region_values"), volumes(6.6), version=3),
        "roi.candidates": Stage(candidates, ("candidates",), volumes(3.0), "10.64898/2026.05.26.26354154"),
    }
)
"""Every method, by its name in pipelines and on the command line."""
