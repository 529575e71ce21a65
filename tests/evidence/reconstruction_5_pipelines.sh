#!/usr/bin/env bash
# RECONSTRUCTION 5: every shipped pipeline from BIDS to a report through the command line: a simulated cohort of oblique
# heads with R2 of spin echoes, another of eight receive coils kept apart, and `consensus` on both real scans.
source "$(dirname "$0")/common.sh"
DATA="${QSM_DASK_TEST_DATA:-../shared/data}"
qsm-dask simulate "$OUT/bids/combined" --subjects 2 --seed 5 --oblique --spin-echo --quiet
qsm-dask simulate "$OUT/bids/coils" --subjects 2 --seed 6 --coils 8 --spin-echo --quiet
for data in combined coils; do
  beside="$OUT/bids/$data/derivatives"
  for pipeline in fast consensus ukb accurate two-pass separation swi; do
    qsm-dask run "$OUT/bids/$data" "$OUT/$data/$pipeline" --pipeline "$pipeline" --quiet \
      --derivatives "$beside/truth:dseg" --derivatives "$beside/spinecho:r2"
  done
done
qsm-dask run "$DATA/philips-3t-two-echo/bids" "$OUT/real/philips" --quiet
python -m tests.brain_crop "$OUT/bids/crop" "$DATA/romeo-brain-crop"
qsm-dask run "$OUT/bids/crop" "$OUT/real/crop" --quiet
for cohort in philips crop; do
  qsm-dask status "$OUT/real/$cohort"
  ls "$OUT/real/$cohort"/report/scans/*.png > /dev/null
done
python -m tests.evidence.judge_pipelines "$OUT"
