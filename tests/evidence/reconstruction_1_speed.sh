#!/usr/bin/env bash
# RECONSTRUCTION 1: speed and memory of every stage against its own FFTs; `consensus` costs at most 350 rfftn.
source "$(dirname "$0")/common.sh"
python tests/benchmarks/bench_kernels.py --most 350
