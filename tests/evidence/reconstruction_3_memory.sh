#!/usr/bin/env bash
# RECONSTRUCTION 3: the peak memory of every stage, measured in a fresh process, within what it declares.
source "$(dirname "$0")/common.sh"
pytest -q tests/kernels tests/anatomy -k "memory" | tee "$OUT/pytest.log"
tail -n 1 "$OUT/pytest.log"
