"""The age curve of putaminal iron that a simulated cohort gives back, against the one it was made of.

Usage: python tests/evidence/judge_age.py COHORT

Reads `tables/iron.tsv` and the participants of a cohort whose iron was told by the calibration `simulated`, fits
iron = 10 (plateau (1 - exp(-rate age)) + 0.46) ug/g to the mean of both putamina, and exits 1 unless the truth lies in
the 95 % intervals, the plateau within 10 % and the rate within 20 %.
"""

import io
import sys

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from qsm_dask import open_cohort
from qsm_dask.cohort.participants import read
from qsm_dask.store.documents import IRON

PLATEAU, RATE, BIRTH = 14.62, 0.04, 0.46  # mg/100 g, 1/year; Hallgren and Sourander 1958
Floats = NDArray[np.float64]


def curve(age: Floats, plateau: float, rate: float) -> Floats:
    """Iron [ug/g] at `age` [years]."""
    return np.asarray(10 * (plateau * (1 - np.exp(-rate * age)) + BIRTH))


def fit(age: Floats, iron: Floats) -> tuple[Floats, Floats]:
    """Plateau and rate, and half the width of their 95 % intervals.

    People differ by a share of their iron, so that its spread grows with it: residuals are weighed by the curve itself,
    which settles in a few rounds. The scale of the residuals is estimated from them.
    """
    spread = np.full_like(iron, iron.mean())
    for _ in range(10):
        found, covariance = optimize.curve_fit(curve, age, iron, p0=(iron.max() / 10, 0.05), sigma=spread)
        spread = curve(age, *found)
    quantile = stats.t.ppf(0.975, iron.size - 2)
    return found, quantile * np.sqrt(np.diag(covariance))


def main(place: str) -> int:
    """Print the comparison; 0 if it holds."""
    cohort = open_cohort(place)
    data, people = cohort.read_document(IRON), read(cohort)
    if data is None or people is None:
        print("no iron table, or no participants: run `qsm-dask iron` first")
        return 1
    table = pd.read_csv(io.BytesIO(data), sep="\t", na_values=["n/a"])
    putamen = table[table["structure"] == "putamen"].groupby("participant_id")["iron"].mean()
    ages = people.set_index("participant_id")["age"].astype(float)
    age, iron = ages[putamen.index].to_numpy(), putamen.to_numpy()
    found, half = fit(age, iron)
    print(f"{iron.size} subjects of {age.min():.1f} to {age.max():.1f} years")
    good = iron.size == 60 and bool(np.isfinite(iron).all())
    for name, value, width, truth, share in zip(
        ("plateau", "rate"), found, half, (PLATEAU, RATE), (0.10, 0.20), strict=True
    ):
        inside, near = abs(value - truth) <= width, abs(value / truth - 1) <= share
        good &= bool(inside and near)
        print(f"{name:8} {value:.4f}, 95 % {value - width:.4f} to {value + width:.4f}; truth {truth}: "
              f"{100 * (value / truth - 1):+.1f} % of at most {100 * share:.0f} %, "
              f"{'inside' if inside else 'OUTSIDE'} the interval")  # fmt: skip
    residual = iron / curve(age, *found) - 1
    print(f"spread about the curve {100 * residual.std():.1f} %; simulated are 8 % a region")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
