# The two commands are `make serve` and `make test`; each sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
# A recipe that fails must not leave a target that looks made: a half-made .venv is made again.
.DELETE_ON_ERROR:
.PHONY: help serve test check format docs bench bench-cluster wheel clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

serve: $(VENV)/.installed ## install into .venv and start the server (ARGS='--port 9000' for more)
	$(BIN)/tracardi-lite serve $(ARGS)

test: $(VENV)/.installed-dev ## install into .venv with the test extras and run the tests (ARGS='-k name')
	$(BIN)/python -m pytest -m 'not integration' $(ARGS)

check: $(VENV)/.installed-dev ## lint and type-check
	$(BIN)/ruff check src backends tests bench
	$(BIN)/ruff format --check src backends tests bench
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## format the code
	$(BIN)/ruff check --fix src backends tests bench
	$(BIN)/ruff format src backends tests bench

docs: $(VENV)/.installed-dev ## write the generated pages and example files (tests compare them)
	$(BIN)/python -m tracardi_lite.cli.docs

bench: $(VENV)/.installed-dev ## measure against the ceilings (needs wrk); prints a table of ratios
	$(BIN)/python -m bench

bench-cluster: $(VENV)/.installed-dev ## the same on Pulsar and Elasticsearch, which it starts
	$(BIN)/python -m bench.cluster $(ARGS)

wheel: $(VENV)/.installed-dev ## build sdist and wheel into dist/
	$(BIN)/python -m build

clean: ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
