#!/usr/bin/env bash
# COHORT SCALE 2: 2,000 small scans; memory of workers, scheduler and driver rises by at most 5 % of its mean.
# It takes about half an hour on two processors and draws docs/scale-memory.png.
source "$(dirname "$0")/common.sh"
python tests/benchmarks/bench_flat.py --scans "${QSM_DASK_SCANS:-2000}" --most 5 --docs docs
