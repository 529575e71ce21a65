# Everything a newcomer needs: `make demo`, then `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo parts test test-all check format docs bench accuracy clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "qsm_dask needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 demo"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "this Python cannot make environments with pip: install the package python3-venv (apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(STAMP)  ## Make the environment .venv and install the package with what its tests need

demo: $(STAMP)  ## Simulate a small cohort, run everything, compare with the truth
	$(BIN)/qsm-dask demo demo-output

parts: $(STAMP)  ## Install the servers that some tests run against (an S3 server; SLURM where this is root on Debian)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,parts]'
	tests/real_parts/install.sh

test: $(STAMP)  ## The test suite without its slow part
	$(BIN)/pytest -m 'not slow'

test-all: $(STAMP)  ## Every test, those of faults three times
	$(BIN)/pytest --fault-rounds 3

check: $(STAMP)  ## Style, types and the rules of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Put the code in its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## Write the pages of the guide that the code tells by itself
	$(BIN)/python -m docs.generate

bench: $(STAMP)  ## Measure speed and memory, and write docs/speed.md
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,evidence]'
	$(BIN)/python tests/benchmarks/bench_engine.py
	$(BIN)/python tests/benchmarks/bench_overhead.py
	$(BIN)/python -m tests.benchmarks.speed --docs docs

accuracy: $(STAMP)  ## Compare every method with known truth, and write docs/accuracy.md
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,evidence]'
	$(BIN)/python -m tests.benchmarks.accuracy --jobs 2 --docs docs

clean:  ## Remove what was made
	rm -rf $(VENV) demo-output evidence-output build dist .pytest_cache .mypy_cache .ruff_cache
