#!/usr/bin/env bash
# COHORT SCALE 4: what `qsm-dask plan` predicts is within 25 % of a run on this machine; and a study of the size of
# UK Biobank on 100 nodes.
source "$(dirname "$0")/common.sh"
python tests/benchmarks/bench_plan.py --study --docs docs
python tests/benchmarks/bench_plan.py --scans 120 --within 25 --docs docs
