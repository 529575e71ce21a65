#!/usr/bin/env bash
# COHORT SCALE 5: every fault, three rounds in a row, with every part real; a part that is missing is a failure.
# Needs root on Debian or Ubuntu, for SLURM, network namespaces and small disks.
source "$(dirname "$0")/common.sh"
make --silent parts
QSM_DASK_ALL_PARTS=1 pytest -q --fault-rounds 3 tests/faults | tee "$OUT/pytest.log"
tail -n 1 "$OUT/pytest.log"
