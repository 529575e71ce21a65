"""Write 60 simulated heads of ages spread over 5 to 90 years, in an order that tells nothing.

Usage: python -m tests.evidence.age_cohort OUT
"""

import sys
from pathlib import Path

import numpy as np

from qsm_dask.engine import open_engine, read_spec
from qsm_dask.workflow import simulate

SUBJECTS, SEED = 60, 20


def ages() -> list[float]:
    """One age in each sixtieth of the span, at a random place in it, shuffled."""
    rng = np.random.default_rng(SEED)
    places = (np.arange(SUBJECTS) + rng.random(SUBJECTS)) / SUBJECTS
    return [round(float(age), 1) for age in rng.permutation(5.0 + 85.0 * places)]


if __name__ == "__main__":
    with open_engine(read_spec("local")) as engine:
        simulate.run(Path(sys.argv[1]), subjects=SUBJECTS, seed=SEED, ages=ages(), engine=engine)
