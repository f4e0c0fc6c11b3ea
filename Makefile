# Two commands for a fresh clone: `make reproduce` and `make test`. Each sets itself up first.
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PYTHON ?= python3
export PATH := $(BIN):$(PATH)

.PHONY: help setup reproduce test lint schema

help:
	@echo "make reproduce   set up, then make every result of params.yaml: snakemake --cores all"
	@echo "make test        set up, then run all the tests"
	@echo "make lint        set up, then ruff and mypy"

setup: $(VENV)/.installed

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

reproduce: setup
	snakemake --cores all

test: setup
	pytest

lint: setup
	ruff check .
	ruff format --check .
	mypy
	snakemake --lint

schema: setup
	mdpipe schema > workflow/params.schema.json
