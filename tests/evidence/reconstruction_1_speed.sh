#!/usr/bin/env bash
# RECONSTRUCTION 1: speed and memory of every stage against its own FFTs, and of the pipelines: `consensus` costs at
# most 350 rfftn. Every limit must hold; nothing else should run beside. The page and every figure are kept.
source "$(dirname "$0")/common.sh"
status=0
python -m tests.benchmarks.speed --docs "$OUT" --json "$OUT/figures.json" > "$OUT/printed.md" || status=$?
cat "$OUT/printed.md"
exit "$status"
