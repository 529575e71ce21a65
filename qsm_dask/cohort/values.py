"""The region values of one scan, under the reference that its pipeline or a user chose."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.cohort.standing import Standing
from qsm_dask.dictionary import MOMENTS
from qsm_dask.quantities import COORDINATES
from qsm_dask.references import CSF, Moments, moments_of, shifted
from qsm_dask.store import CohortStore
from qsm_dask.store.datasets import region_names

_QUANTITIES = ("region_labels", "region_values", "csf_reference", "candidates")


@dataclass(frozen=True)
class Values:
    """The region values of one scan.

    Attributes
    ----------
    labels, names : of the regions.
    maps : those that the scan has.
    array : (map, region, statistic).
    reference, moments : what chi is relative to, and its offset [ppm], SD [ppm] and size; None where unknown.
    csf : the moments of the fluid, in chi as it is here.
    candidates : (candidate, property), None where nobody looked for any.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    maps: tuple[str, ...]
    array: NDArray[np.float64]
    reference: str
    moments: tuple[float | None, ...]
    csf: tuple[float | None, ...]
    candidates: NDArray[np.float64] | None


def read_values(cohort: CohortStore, standing: Standing, chosen: tuple[str, ...] = ()) -> tuple[Values | None, str]:
    """The region values of a scan, or why there are none.

    Parameters
    ----------
    cohort : the store.
    standing : of the scan.
    chosen : regions that chi shall be relative to, from `references.parts`; none for the pipeline's choice.

    Raises
    ------
    StoreError : they cannot be read.
    """
    node = standing.node("regions")
    if node is None:
        return None, standing.reason or "the pipeline has no step that takes region values (roi.statistics)"
    if node.state != "done":
        return None, standing.reason or node.reason
    commit = standing.commit(cohort, "regions")
    if commit is None:
        return None, "the commit of its region values is gone: run `qsm-dask process` again"
    arrays = cohort.read(commit, [name for name in _QUANTITIES if name in commit.arrays])
    found, fluid = arrays["region_values"], arrays.get("csf_reference")
    present = [number for number in range(found.shape[0]) if np.isfinite(found[number]).any()]
    named = region_names(arrays["region_labels"].tolist(), standing.labels)
    reference, moments = _reference(cohort, standing)
    chi = {name: found[0, row] for row, (_, name) in enumerate(named)}
    csf = moments_of((CSF,), chi, fluid)
    if chosen:
        other = moments_of(chosen, chi, fluid)
        found = np.concatenate([shifted(found[:1], other.offset), found[1:]])
        reference, moments = "+".join(chosen), _told(other._replace(offset=other.offset + (moments[0] or 0.0)))
        csf = csf._replace(offset=csf.offset - other.offset)
    return Values(
        labels=tuple(label for label, _ in named),
        names=tuple(name for _, name in named),
        maps=tuple(COORDINATES["map"][number] for number in present),
        array=found[present],
        reference=reference,
        moments=moments,
        csf=_told(csf),
        candidates=arrays.get("candidates"),
    ), ""


def _told(moments: Moments) -> tuple[float | None, ...]:
    """Moments as a table has them, where what is unknown is missing."""
    return tuple(value if np.isfinite(value) else None for value in moments)


def _reference(cohort: CohortStore, standing: Standing) -> tuple[str, tuple[float | None, ...]]:
    """What chi is relative to, and the moments of that reference."""
    commit = standing.commit(cohort, "maps")
    step = None if standing.plan is None else standing.plan.reference_of("chi")
    if commit is None or step is None:
        return "not referenced", (None,) * len(MOMENTS)
    name = str(step.stage).removeprefix("reference.")
    labels = step.parameters.get("labels")
    if labels:
        name = "+".join(standing.labels.get(str(label), f"label_{label}") for label in labels)
    moments = step.outputs[1]
    if moments not in commit.arrays:
        return name, (None,) * len(MOMENTS)
    return name, tuple(cohort.read(commit, (moments,))[moments].tolist())
