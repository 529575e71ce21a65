#!/usr/bin/env bash
# MAIN JOB 3: BIDS datasets by the independent package qsm-forward, axial and oblique, isotropic and
# anisotropic: the correlation with their truth is above 0.85 inside the eroded mask.
source "$(dirname "$0")/common.sh"
python -m tests.forward_datasets "$OUT/bids"
for dataset in "$OUT"/bids/*; do
  qsm-dask run "$dataset" "$OUT/cohorts/$(basename "$dataset")" --quiet
done
python -m tests.evidence.judge_forward "$OUT"
