#!/usr/bin/env bash
# MAIN JOB 1: the demo ends within 5 minutes on 2 cores; every deep grey region of every scan within
# 15 % or 10 ppb of the truth (both maps minus their mean over the same final mask).
source "$(dirname "$0")/common.sh"
SECONDS=0
qsm-dask demo "$OUT" --json > "$OUT/recovered.json"
elapsed=$SECONDS
python tests/evidence/judge_demo.py "$OUT/recovered.json"
((elapsed < 300))
echo "demo: ${elapsed} s of 300 s"
