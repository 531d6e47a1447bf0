# Everything a newcomer needs: `make run`, `make test`. The rest serves the people who work here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PLUGIN_SOURCES := $(shell find plugins -path plugins/sdk/templates -prune -o -type f ! -name '*.wasm' ! -name '*.md' -print)
PEER_PACKAGES := curl lld libstd-rust-dev-wasm32 rustc

.PHONY: run test soak bench lint format docs setup peers plugins lock clean
.DEFAULT_GOAL := run

run: setup
	$(BIN)/gateway run $(ARGS)

test: setup $(VENV)/.dev
	$(BIN)/pytest

soak: setup $(VENV)/.dev
	$(BIN)/pytest -m soak

bench: setup $(VENV)/.dev
	$(BIN)/python -m bench

lint: setup $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Schemas and the page of the configuration are written from the types; tests fail on a difference.
docs: setup $(VENV)/.dev
	$(BIN)/python schemas/generate.py
	$(BIN)/python docs/generate.py

setup: $(VENV)/.run plugins

$(VENV)/.run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Flux Gateway needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# Each plugin is built from source with the zig toolchain that `setup` installed.
plugins: $(VENV)/.plugins

$(VENV)/.plugins: $(VENV)/.run $(PLUGIN_SOURCES)
	$(BIN)/gateway plugin build --all
	@touch $@

# Debian packages that tests use; tests name the one they miss.
peers:
	@dpkg -s $(PEER_PACKAGES) >/dev/null 2>&1 || \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PEER_PACKAGES) >/dev/null; \
	else \
		echo "tests that need them are skipped; to run them: sudo apt-get install $(PEER_PACKAGES)"; \
	fi

# Pins every dependency with its hashes; no registry address is written.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-emit-index-url --generate-hashes --extra build pyproject.toml -o requirements.lock --quiet
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-emit-index-url --generate-hashes --extra build --extra dev pyproject.toml -o requirements-dev.lock --quiet

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find plugins -name '*.wasm' -delete
