# Everything that the targets need, they install: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# Tests run side by side on the cores there are; then, alone, those that measure time.
PYTEST := $(BIN)/python -m pytest
SIDE := -n logical --maxprocesses 4
# Those of the rest wait for daemons half of their time: one more than there are cores.
REST_SIDE = -n $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count() + 1))")
REST := (postgres or dagster_ui or wheel or slow)

.PHONY: demo test test-rest test-all dev check lint types layers oracle bench torture install clean \
	pictures help

help: ## What there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -c constraints.txt -e '.[dev,postgres]'
	@touch $@

install: $(VENV)/installed ## Install what `personas` needs into .venv

demo: $(VENV)/installed ## A shop's messages through the whole platform, with real results
	@$(BIN)/python -m personas_dagster.samples.demo .

dev: $(VENV)/installed ## Dagster's UI with both spaces, on http://127.0.0.1:3000
	@$(BIN)/personas dev

check: $(VENV)/installed ## Are all definitions right?
	@$(BIN)/personas check

test: $(VENV)/installed-dev ## The tests that need nothing but Python, without the slow ones
	$(PYTEST) $(SIDE) --dist loadfile -m "not $(REST) and not quiet"
	$(PYTEST) -m "not $(REST) and quiet"

test-rest: $(VENV)/installed-dev ## The others: they need PERSONAS_TEST_POSTGRES_URL, Chromium, Node
	$(PYTEST) $(REST_SIDE) --dist loadfile -m "$(REST) and not quiet"
	$(PYTEST) -m "$(REST) and quiet"

test-all: test test-rest ## All tests

lint: $(VENV)/installed-dev ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed-dev ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/installed-dev ## Imports run one way
	$(BIN)/lint-imports

oracle: $(VENV)/installed-dev ## 95,000 nasty streams against the sequential reading (SEED=n for others)
	PERSONAS_ORACLE_SEED=$(or $(SEED),1) PERSONAS_ORACLE_STREAMS=3400 \
		$(BIN)/python -m pytest tests/identity/test_identity_oracle.py

bench: $(VENV)/installed-dev ## Load and refresh of 1,000,000 messages (BENCH="1 10 100" for more)
	$(BIN)/python benchmarks/run.py $(or $(BENCH),1)
	$(BIN)/python benchmarks/identity.py --messages $(or $(BENCH),1)
	$(BIN)/python benchmarks/compute.py --millions $(or $(BENCH),1)
	$(BIN)/python benchmarks/hour.py --millions $(or $(BENCH),1)
	$(BIN)/python benchmarks/delivery.py 1000000
	$(BIN)/python benchmarks/profiles.py 1000000
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/answers.py 10

torture: $(VENV)/installed-dev ## 500 syncs killed at random instants, with and without faults
	$(BIN)/python tests/activation/torture.py 500

pictures: $(VENV)/installed-dev ## The README's pictures, taken from the running UI with Chromium
	$(BIN)/python docs/pictures/take.py

clean: ## Remove what the demo and the tools made
	rm -rf .personas $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
