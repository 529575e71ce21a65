#!/usr/bin/env bash
# ANATOMY 5: 60 simulated subjects of 5 to 90 years give back the age curve of putaminal iron they were made of.
source "$(dirname "$0")/common.sh"
python -m tests.evidence.age_cohort "$OUT/heads"
qsm-dask run "$OUT/heads" "$OUT/cohort" --derivatives "$OUT/heads/derivatives/truth:dseg" --quiet
qsm-dask iron "$OUT/cohort" --calibration simulated
python tests/evidence/judge_age.py "$OUT/cohort"
