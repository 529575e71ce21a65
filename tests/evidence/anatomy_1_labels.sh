#!/usr/bin/env bash
# ANATOMY 1: regions of an atlas in simulated heads of which each has its own form, age and iron, against the labels that
# the heads were made with: overlap, medians on the same map, and medians against the truth, nucleus by nucleus.
# Heads at 1 mm; one job at a time. Seeds and subjects are not those that parameters were chosen with.
source "$(dirname "$0")/common.sh"
pip install --quiet --disable-pip-version-check --editable '.[dev,evidence,anatomy]'
for seed in 101 202; do
  qsm-dask simulate "$OUT/bids-$seed" --subjects 3 --seed "$seed" --shape 192 224 160 --atlas --quiet
  qsm-dask run "$OUT/bids-$seed" "$OUT/cohort-$seed" --pipeline regions \
    --atlas "$OUT/bids-$seed/derivatives/atlas/tpl-phantom" --quiet
done
python -m tests.evidence.judge_labels "$OUT"/bids-101 "$OUT"/cohort-101 "$OUT"/bids-202 "$OUT"/cohort-202
