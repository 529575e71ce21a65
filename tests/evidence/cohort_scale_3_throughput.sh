#!/usr/bin/env bash
# COHORT SCALE 3: two local workers reach 0.95 of the throughput of two bare processes (median of 3).
source "$(dirname "$0")/common.sh"
python tests/benchmarks/bench_throughput.py --scans 40 --repeats 3 --least 0.95 --docs docs
