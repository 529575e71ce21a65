#!/usr/bin/env bash
# MAIN JOB 2: `run` on the real human data ends with a susceptibility map, whose picture is written.
source "$(dirname "$0")/common.sh"
DATA="${QSM_DASK_TEST_DATA:-../shared/data}"
qsm-dask run "$DATA/philips-3t-two-echo/bids" "$OUT/philips" --quiet
python -m tests.brain_crop "$OUT/crop-bids" "$DATA/romeo-brain-crop"
qsm-dask run "$OUT/crop-bids" "$OUT/crop" --quiet
for cohort in philips crop; do
  qsm-dask status "$OUT/$cohort"
  ls "$OUT/$cohort"/report/scans/*.png > /dev/null
done
echo "two real scans done; look at $OUT/{philips,crop}/report/index.html"
