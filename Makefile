# `make demo` and `make test` are all the set-up there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

RECIPE ?= tiny
SEED ?= 0
DATA ?= .headwater
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)

VENV := .venv
BIN := $(VENV)/bin
# The build of torch is in the stamp's name: another build is another set-up, and the one that is there stays until another is named.
STAMPS := $(VENV)/.headwater-setup-
UV_TORCH_BACKEND ?= $(or $(patsubst $(STAMPS)%,%,$(firstword $(wildcard $(STAMPS)*))),cpu)
STAMP := $(STAMPS)$(UV_TORCH_BACKEND)
# uv does not read pip's settings; a folder of wheels configured there is where torch is found offline.
FIND_LINKS = $(shell echo "$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)}")
UV_PIP = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps $(addprefix --find-links ,$(FIND_LINKS))

.PHONY: help setup demo up down test check lint format lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with every pinned requirement (again only when these change)

$(STAMP): requirements/locked.txt requirements/torch.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "Headwater needs Python 3.11 to 3.13; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1). Name another: make setup PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv==0.13.9
	@echo "Installing the pinned requirements into $(VENV) (a minute or two the first time)"
	@rm -f $(filter-out $@,$(wildcard $(STAMPS)*))
	@$(UV_PIP) $(if $(FIND_LINKS),,--torch-backend=$(UV_TORCH_BACKEND)) $(if $(wildcard $@),,--reinstall-package torch) -r requirements/torch.txt
	@$(UV_PIP) -r requirements/locked.txt
	@$(UV_PIP) --no-build-isolation --editable .
	@touch $@

demo: setup  ## one whole campaign on this machine: RECIPE=tiny|smollm2 SEED=0
	@$(BIN)/headwater demo --recipe $(RECIPE) --seed $(SEED) --data-dir $(DATA)

up: setup  ## start every process and follow the log (Ctrl-C stops them)
	@$(BIN)/headwater up --data-dir $(DATA)

down: setup  ## stop what `make up` or `headwater up --detach` started
	@$(BIN)/headwater down --data-dir $(DATA)

test: check  ## everything CI runs: check, then all tests
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: setup  ## lint, formatting, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lint: check

format: setup  ## put the code into shape
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

lock: setup  ## resolve requirements/locked.txt again from pyproject.toml and engine.in
	@$(BIN)/uv pip compile pyproject.toml requirements/engine.in --extra local --extra dev --override requirements/overrides.txt \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
		--no-emit-package torch --no-emit-package headwater $(addprefix --find-links ,$(FIND_LINKS)) --quiet --output-file requirements/locked.txt

clean:  ## remove caches (data in $(DATA) and the environment stay)
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
