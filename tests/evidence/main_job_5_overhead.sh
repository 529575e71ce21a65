#!/usr/bin/env bash
# MAIN JOB 5: 200 tiny scans through the whole of `run`: the engine's and store's own cost under 0.15 s a scan.
source "$(dirname "$0")/common.sh"
python tests/benchmarks/bench_overhead.py --scans 200 --most 0.15
