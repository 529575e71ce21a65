"""What iterates says how often, how far it is from rest and whether that will do; the provenance keeps it."""

import math

import pytest

from qsm_dask.kernels.solved import Solved
from tests.kernels import every_stage
from tests.kernels.every_stage import EVEN_TE, STAGES, head, returned

TOLERANCES = {
    name: [parameter for parameter in stage.parameters if parameter.startswith("tolerance")]
    for name, stage in STAGES.items()
}
LIMITS = ("iterations", "max_iterations", "first_iterations")


def usual(stage):
    given = head()
    return given if stage in every_stage.runs_on(given) else head(EVEN_TE)


@pytest.mark.parametrize("stage", [name for name, found in TOLERANCES.items() if not found])
def test_what_has_no_tolerance_does_not_iterate(stage):
    assert not any(parameter.endswith("iterations") for parameter in STAGES[stage].parameters)


@pytest.mark.parametrize("stage", [name for name, found in TOLERANCES.items() if found])
def test_a_solver_that_runs_out_of_iterations_says_so(stage):
    limits = {name: 1 for name in LIMITS if name in STAGES[stage].parameters}
    *outputs, solved = returned(stage, usual(stage), **limits, **dict.fromkeys(TOLERANCES[stage], 1e-9))
    assert len(outputs) == len(STAGES[stage].outputs)
    assert isinstance(solved, Solved)
    assert type(solved.converged) is bool
    assert not solved.converged
    assert solved.iterations >= 1
    assert math.isfinite(solved.residual)
    assert solved.residual > 1e-9


@pytest.mark.parametrize("stage", [name for name, found in TOLERANCES.items() if found])
def test_a_solver_within_its_tolerance_says_so(stage):
    """With one so wide that a few iterations do."""
    *_, solved = returned(stage, usual(stage), **dict.fromkeys(TOLERANCES[stage], 0.9))
    assert solved.converged
