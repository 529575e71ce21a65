#!/usr/bin/env bash
# MAIN JOB 6: bids-validator-deno accepts the simulated raw dataset, its truth and the exported derivatives.
source "$(dirname "$0")/common.sh"
qsm-dask simulate "$OUT/bids" --subjects 2 --shape 48 56 40 --quiet
qsm-dask run "$OUT/bids" "$OUT/cohort" --derivatives "$OUT/bids/derivatives/truth:dseg" --quiet
qsm-dask export "$OUT/cohort" "$OUT/export" --quiet
for dataset in bids bids/derivatives/truth export; do
  bids-validator-deno --ignoreWarnings "$OUT/$dataset"
done
echo "3 datasets valid, 0 errors"
