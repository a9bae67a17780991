# One command each, the same by hand and in CI. What is already there is not done again:
# the stamps depend on pyproject.toml and constraints.txt alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Every install names torch under the same constraints, so two torch versions never meet.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -qq -c constraints.txt torch
PYTEST_FLAGS ?= -n 2

.DEFAULT_GOAL := help
.PHONY: help quickstart setup test lint format types docs docs-check examples bench clean

help:  ## these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-quickstart: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing limbeck and what it needs into $(VENV), some minutes ..."
	@$(INSTALL) -e ".[export]"
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing limbeck and all that the checks need into $(VENV), some minutes ..."
	@$(INSTALL) torchvision -e ".[dev]"
	@touch $@ $(VENV)/.stamp-quickstart

quickstart: $(VENV)/.stamp-quickstart  ## install what the main job needs, then distil a first student
	$(BIN)/limbeck distill quickstart

setup: $(VENV)/.stamp-dev  ## everything that tests and checks need, in .venv

test: export OMP_NUM_THREADS = 1  # the test processes share the cores
test: setup  ## all tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: setup  ## style and format, nothing is changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## bring files into the common format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## strict types
	$(BIN)/mypy

docs: setup  ## write the generated pages
	$(BIN)/python -m tools.docs

docs-check: setup  ## say which generated pages are stale
	$(BIN)/python -m tools.docs --check

examples: setup  ## run examples/ and every block in README and docs/
	$(BIN)/python -m tools.readme

bench: setup  ## the benchmarks; takes long, continues where it stopped
	$(BIN)/python -m benchmarks.quality.run

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
