# Every target works from a fresh clone: .venv is made on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help venv demo test checked check controlplane bench dashboards clean

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

bench: venv  ## measure the sizes and speeds that the README claims
	$(BIN)/python -m benchmarks $(ARGS)

dashboards: venv  ## write dashboards/service.json and engines.yaml again, from panels.py and the tables of pages
	$(BIN)/python -m dashboards.build
	$(BIN)/python -m dashboards.engines

clean:  ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
