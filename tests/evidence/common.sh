# Sourced by every evidence script: strict mode, the project's root, its environment, a scratch folder.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make --silent install
# Packages that only the evidence needs; already there on a second run.
.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,evidence]'
PATH="$PWD/.venv/bin:$PATH"
OUT="${QSM_DASK_EVIDENCE:-$PWD/evidence-output}/$(basename "$0" .sh)"
rm -rf "$OUT"
mkdir -p "$OUT"
export OUT
