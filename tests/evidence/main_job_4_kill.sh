#!/usr/bin/env bash
# MAIN JOB 4: SIGKILL in mid-run, run again: commits are unchanged, digests equal those of an undisturbed run.
source "$(dirname "$0")/common.sh"
python -m tests.evidence.judge_kill "$OUT"
