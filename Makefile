# The commands of this repository; `make` alone prints them.
#
# Everything happens in .venv, made on first use from pyproject.toml and constraints.txt.
# PYTHON picks the interpreter that .venv is made from: make test PYTHON=python3.12
# ARGS is passed on to pytest:                          make test ARGS='-k geometry -x'
# JOBS is how many files of tests run at a time:        make test JOBS=4
# CHAOS is passed on to benchmarks/chaos.py:            make chaos CHAOS='--only soak'

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test chaos check clean
.DELETE_ON_ERROR:

help: ## print this list
	@sed -nE 's/^([a-z]+):.*## (.*)$$/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(READY) ## run the demonstration; its result is left in demo/
	$(BIN)/saccade demo -o demo

test: $(READY) ## run the whole test suite
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(READY) ## inject faults and compare what is left (10 minutes and more); CHAOS= its options
	$(BIN)/python benchmarks/chaos.py $(CHAOS)

check: $(READY) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove .venv, build products, caches and the demonstration
	rm -rf $(VENV) build dist demo *.egg-info .coverage .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -c "$$SUPPORTED"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing saccade and its tested environment into $(VENV) (minutes, the first time)"
	@$(PIP) install -qq -e '.[test,check]' -c constraints.txt
	@touch $@

define SUPPORTED
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"saccade needs Python 3.11 to 3.13; {sys.executable} is {found}. "
             "Name another one: make PYTHON=python3.12")
endef
export SUPPORTED
