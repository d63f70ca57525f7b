# Every target works from a fresh clone: .venv is made on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
REFEREE := .venv-dynosim
PEERS  := .venv-bench
ARGS   ?=

.PHONY: help venv demo test checked check controlplane bench bench-scheduler dynosim-env bench-referee bench-forecast dashboards clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(VENV)/.ready  ## make .venv with all that demo and tests need

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "roleratio needs Python 3.11 or newer, found " + sys.version.split()[0] + "; call make with PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: venv  ## run everything on the embedded cluster (ARGS="--headless --report out")
	$(BIN)/roleratio demo $(ARGS)

# The control plane of the tests starts while style and types are checked.
test: venv controlplane  ## the whole test suite
	$(BIN)/python -m tests.controlplane.run $(MAKE) --no-print-directory checked

checked: check
	$(BIN)/python -m pytest $(ARGS)

check: venv  ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

controlplane: venv  ## build the Kubernetes control plane that tests run (once, minutes)
	@$(BIN)/python tests/controlplane/build.py

bench: venv controlplane  ## measure the sizes and speeds that the README claims
	$(BIN)/python -m benchmarks $(ARGS)

bench-scheduler: venv controlplane  ## the gang scheduler alone, and beside kube-scheduler on a real control plane
	$(BIN)/python -m benchmarks scheduler scheduler_core gang_binding $(ARGS)

dynosim-env: $(REFEREE)/.ready  ## install Dynamo's simulator and planner beside ours (.venv-dynosim, 1.4 GB)

# The simulator without its own dependencies, which would bring an engine: pip's warning of conflicts is about them.
$(REFEREE)/.ready: benchmarks/dynosim/simulator.txt benchmarks/dynosim/planner.txt | $(VENV)/.ready
	$(BIN)/python -m venv $(REFEREE)
	$(REFEREE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/dynosim/simulator.txt
	$(REFEREE)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/dynosim/planner.txt
	@touch $@

bench-referee: venv dynosim-env  ## policies in Dynamo's own simulator; hours, goes on where it was (ARGS="sine --jobs 2")
	$(BIN)/python -m benchmarks.dynosim $(ARGS)

# Peers of the forecaster want an environment of their own: what they pin must not reach ours.
$(PEERS)/.ready: pyproject.toml | $(VENV)/.ready
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

bench-forecast: venv $(PEERS)/.ready  ## forecasts by ours and by its peers, all on the same origins (ARGS="--data FILE --json OUT")
	$(PEERS)/bin/python -m benchmarks.forecast --cache $(PEERS)/forecasts $(ARGS)

dashboards: venv  ## write dashboards/service.json and engines.yaml again, from panels.py and the tables of pages
	$(BIN)/python -m dashboards.build
	$(BIN)/python -m dashboards.engines

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(REFEREE) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
