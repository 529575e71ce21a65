#!/usr/bin/env bash
# COHORT SCALE 1: 10,000 scans with nothing to compute: at most 10 ms a scan, driver and scheduler grow by at most
# 10 MB after scan 3,000; such a cohort opens in under 2 s, and `status` lists no scan.
source "$(dirname "$0")/common.sh"
python tests/benchmarks/bench_index.py --scans 10000 --most-open 2 --most-ms 10 --most-growth 9.5 --docs docs
python tests/benchmarks/bench_engine.py 10000 --most-ms 10 --most-growth 9.5 --docs docs
