"""Every stage of the table has its peak memory measured somewhere."""

from qsm_dask.stages import STAGES
from tests.anatomy import test_memory
from tests.kernels import test_fields_memory, test_phase_memory


def test_every_stage_has_a_measured_case_and_no_case_is_of_no_stage() -> None:
    measured = {name for name, _ in (*test_fields_memory.CASES.values(), *test_phase_memory.CASES)}
    measured |= {*test_memory.CASES, *test_memory.EXTRACTION, test_memory.STRUCTURAL}
    assert measured == set(STAGES)
