# Two commands for a fresh clone: `make reproduce` and `make test`. Each sets itself up first.
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PYTHON ?= python3
export PATH := $(BIN):$(PATH)
# One process of the tests more than cores, since some wait for engines and servers; at most 4, for the sake of memory.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))')
# Without bytecode every process, of which the tests start hundreds, would compile all modules that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup reproduce test test-fast lint docs smoke schema

help:
	@echo "make reproduce   set up, then make every result of params.yaml: snakemake --cores all"
	@echo "make test        set up, then run all tests"
	@echo "make test-fast   set up, then run the tests that are not marked as slow"
	@echo "make lint        set up, then ruff, mypy, codespell, snakefmt, snakemake --lint and pydoclint"
	@echo "make docs        set up, then build the documentation into site/"
	@echo "make smoke       set up, then the smoke preset from clean clones, through both engines"
	@echo "make schema      write the JSON Schema of params.yaml that editors use"

setup: $(VENV)/.installed

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m workflow.plots_template
	touch $@

reproduce: setup
	snakemake --cores all

test: setup
	pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: setup
	pytest -n $(WORKERS) --dist loadfile -m "not pipeline and not slow"

lint: setup
	ruff check .
	ruff format --check .
	mypy
	codespell README.md CONTRIBUTING.md CHANGELOG.md docs results src workflow tests
	snakefmt --check Snakefile workflow
	workflow/lint.sh

# Material for MkDocs prints a notice about its successor otherwise.
docs: export NO_MKDOCS_2_WARNING := 1
docs: setup
	mkdocs build --quiet

smoke: setup
	workflow/smoke.sh

schema: setup
	mdpipe schema > workflow/params.schema.json
