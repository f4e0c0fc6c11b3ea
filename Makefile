# Two commands for a fresh clone: `make reproduce` and `make test`. Each sets itself up first.
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PYTHON ?= python3
export PATH := $(BIN):$(PATH)

.PHONY: help setup reproduce test lint smoke schema

help:
	@echo "make reproduce   set up, then make every result of params.yaml: snakemake --cores all"
	@echo "make test        set up, then run all the tests"
	@echo "make lint        set up, then ruff and mypy"
	@echo "make smoke       set up, then the smoke preset from clean clones, through both engines"
	@echo "make schema      write the JSON Schema of params.yaml that editors use"

setup: $(VENV)/.installed

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

reproduce: setup
	snakemake --cores all

test: setup
	pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup
	ruff check .
	ruff format --check .
	mypy

smoke: setup
	workflow/smoke.sh

schema: setup
	mdpipe schema > workflow/params.schema.json
