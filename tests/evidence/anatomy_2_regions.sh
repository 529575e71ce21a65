#!/usr/bin/env bash
# ANATOMY 2: region statistics are those of plain NumPy to the last bit; a shifted reference is the one recomputed.
source "$(dirname "$0")/common.sh"
qsm-dask simulate "$OUT/heads" --subjects 2 --seed 7 --quiet
qsm-dask run "$OUT/heads" "$OUT/cohort" --derivatives "$OUT/heads/derivatives/truth:dseg" --quiet
python tests/evidence/judge_regions.py "$OUT/cohort" "$OUT/heads/derivatives/truth"
