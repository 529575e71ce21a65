#!/usr/bin/env bash
# MAIN JOB 7: the test suite, whole.
source "$(dirname "$0")/common.sh"
make test-all
