"""No stage changes its results without changing its version; see `golden` for how to renew the numbers."""

import json

import pytest

from qsm_dask.stages import STAGES
from tests.kernels.golden import CASES, FILE, differs

GOLDEN = json.loads(FILE.read_text())

WITHOUT = {
    *("anatomy.align_t1w", "anatomy.register", "anatomy.labels", "anatomy.probabilities", "anatomy.standard"),
    *("mask.bet", "mask.deepbet", "mask.segmentation", "mask.combine"),
}
"""Other people's programs, stages that read an atlas or a segmentation, and what has no number to drift."""


def test_rows_and_cases_are_the_same_stages():
    assert set(GOLDEN) == set(CASES)
    assert set(STAGES) - set(CASES) == WITHOUT


@pytest.mark.parametrize("stage", sorted(CASES))
def test_results_change_only_with_the_version(stage):
    kept = GOLDEN[stage]
    assert kept["version"] == STAGES[stage].version, (
        f"the version of {stage} was raised: renew its numbers with `python -m tests.kernels.golden`"
    )
    now = CASES[stage](stage)
    assert not differs(kept["values"], now), (
        f"{stage} gives {now} where version {kept['version']} gave {kept['values']}: raise its version in "
        "qsm_dask/stages.py, or stored results would stand beside new ones; then run `python -m tests.kernels.golden`"
    )
