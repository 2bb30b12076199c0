# Everything here needs Python 3.10 or newer with pip, and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
PYTEST ?= # further options of pytest, such as -k resume
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo test pytest test-slow test-slurm test-all soak lint format wheel clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## Make .venv with the package and the tools for development

demo: $(VENV)/.installed ## Compare classifiers, a U-Net and a joint network on phantoms, offline, with a report, in minutes
	BUSI_LAB_CACHE=$(DEMO)/cache $(BIN)/busi-train sweep=demo hydra.sweep.dir=$(DEMO)/runs

test: $(VENV)/.installed ## Check style, types, imports and run the tests, in five minutes on two cores
	$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: $(VENV)/.installed # lint needs one core alone, and some tests wait
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST)

test-slow: $(VENV)/.installed ## Run the tests that take minutes each
	$(BIN)/python -m pytest -m 'slow and not gpu and not network and not slurm and not ray and not app' $(PYTEST)

test-slurm: $(VENV)/.installed ## Run the tests that need a SLURM on this machine
	$(BIN)/python -m pytest -m 'slurm and not slow' $(PYTEST)

test-all: test test-slow ## Run all tests that need neither a GPU nor the internet

soak: $(VENV)/.installed ## Fuzz the reader of images, simulate intervals and tests, measure speed: never a part of the tests
	$(BIN)/python -m tests.fuzz_reading 600
	$(BIN)/python -m tests.simulate_uncertainty 1000
	$(BIN)/busi-bench

lint: $(VENV)/.installed ## Check style, types and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed ## Build dist/*.whl
	$(BIN)/python -m build --wheel

clean: ## Remove build and test leftovers and the demo, not .venv
	rm -rf build dist $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
