# Two commands: `make demo` and `make test` do all set-up themselves. Nothing needs to be installed but Python 3.11+, Node and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
TOOLS := node_modules/.package-lock.json
CLIENTS := tests/interop/node_modules/.package-lock.json
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test coverage bench lint async clean wheel lock

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 18

setup: $(STAMP) $(TOOLS) ## Install everything the project needs into .venv and node_modules
	@$(PY) deploy/preflight.py

$(STAMP): requirements/dev.txt pyproject.toml hatch_build.py $(wildcard contracts/*.vy contracts/*/*.vy contracts/*/*.vyi)
	@"$(PYTHON)" deploy/preflight.py --before
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) (a minute or two the first time)"
	@$(PY) -m pip install --quiet --quiet --require-hashes --no-deps -r requirements/dev.txt
	@echo "building the contracts and the package"
	@$(PY) -m pip install --quiet --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS): package.json package-lock.json
	@echo "installing the local chain"
	@npm install --no-save --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(CLIENTS): tests/interop/package.json tests/interop/package-lock.json
	@echo "installing iExec's own clients, which the tests run against a live network"
	@npm ci --prefix tests/interop --ignore-scripts --no-audit --no-fund --silent
	@touch $@

demo: setup ## Run the whole story: protect, grant, run in an enclave, pay, open, revoke
	@$(VENV)/bin/cloister demo

test: setup $(CLIENTS) ## Lint, types, import contracts, contracts, services, end to end
	@$(PY) deploy/preflight.py --tests
	@deploy/run-tests.sh

coverage: setup $(CLIENTS) ## The same, with a count of the lines that were run
	@$(PY) deploy/preflight.py --tests
	@deploy/run-tests.sh coverage

bench: setup ## Measure gas, throughput, memory, latency; print a table beside the budgets
	@$(PY) -m bench

lint: setup ## Style, types and import rules only
	@deploy/run-tests.sh lint

async: setup ## Write the SDK's asyncio twin anew
	@$(PY) deploy/make_async.py

wheel: setup ## Build the wheel and the sdist
	@$(PY) -m build --no-isolation

lock: ## Resolve requirements/*.txt anew from the *.in files and pyproject.toml (needs uv)
	uv pip compile pyproject.toml requirements/dev.in --extra dataframe --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-index-url --no-emit-find-links -q -o requirements/dev.txt
	uv pip compile apps/breast-cancer/requirements.in --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	  --no-header --no-emit-index-url --no-emit-find-links -q -o apps/breast-cancer/requirements.txt
	for wanted in src/cloister/generator/templates/*/requirements.in; do grep -q '^[^#]' "$$wanted" || continue; \
	  uv pip compile "$$wanted" --constraint requirements/dev.txt --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links -q -o "$${wanted%.in}.txt"; done

clean: ## Remove what was built
	rm -rf $(VENV) node_modules tests/interop/node_modules dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/cloister/chain/artifacts/*.json apps/*/build
