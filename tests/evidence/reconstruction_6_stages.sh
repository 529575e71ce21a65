#!/usr/bin/env bash
# RECONSTRUCTION 6: `qsm-dask stages` lists every stage with parameters, types, units, defaults, meanings, memory
# and DOI, in the terminal and as JSON.
source "$(dirname "$0")/common.sh"
qsm-dask stages > "$OUT/stages.txt"
qsm-dask stages --json > "$OUT/stages.json"
python tests/evidence/judge_stages.py "$OUT/stages.json" "$OUT/stages.txt"
