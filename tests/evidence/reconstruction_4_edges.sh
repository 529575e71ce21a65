#!/usr/bin/env bash
# RECONSTRUCTION 4: every stage on the edge cases of scans: oblique B0, anisotropic voxels, odd sizes, masks at the edge
# of the image, one echo, uneven echoes, disjoint masks, empty masks, NaN, no signal; and untouched inputs, any threads.
source "$(dirname "$0")/common.sh"
pytest -q tests/kernels/test_edge_cases.py | tee "$OUT/pytest.log"
tail -n 1 "$OUT/pytest.log"
