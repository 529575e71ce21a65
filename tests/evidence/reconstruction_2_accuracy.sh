#!/usr/bin/env bash
# RECONSTRUCTION 2: every method against known truth, isolated and composed, from one command. All bounds must hold
# on the worst of the heads, and every method that has a bound must exist. The page and its pictures are kept for
# a reader to look at.
source "$(dirname "$0")/common.sh"
status=0
python -m tests.benchmarks.accuracy --jobs 2 --docs "$OUT" --json "$OUT/figures.json" > "$OUT/printed.md" || status=$?
sed -n '/^## Bounds/,/^## Inversion/p' "$OUT/printed.md" | grep '^|' || true
tail -n 2 "$OUT/printed.md"
exit "$status"
