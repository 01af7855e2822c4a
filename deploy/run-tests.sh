#!/usr/bin/env bash
# Everything that must hold before a change lands. Called by `make test`; `lint` as argument stops after the static checks.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin

step() { printf '\n== %s\n' "$*"; }

step "style"
$bin/ruff check .
$bin/ruff format --check .
step "types"
$bin/mypy
step "async twin"
$bin/python deploy/make_async.py --check
step "import rules"
$bin/lint-imports
if [ "${1:-}" = lint ]; then exit 0; fi

# Contracts run in a Python EVM, which measuring coverage would slow down for nothing: no line of the package runs there.
step "contracts"
$bin/pytest -p no:cacheprovider -n 2 --dist loadgroup --timeout 600 -m "not nightly" tests/contracts
step "units, services, end to end"
# Counting lines slows everything by a fifth, so that is done when asked for. Enclaves, workers and commands run in processes of
# their own, which the figure does not count.
coverage=()
if [ "${1:-}" = coverage ]; then coverage=(--cov --cov-report=term --cov-fail-under=75); fi
exec $bin/pytest -p no:cacheprovider -n 3 --dist loadgroup --timeout 300 -m "not nightly" \
  --durations 30 --durations-min 5 "${coverage[@]}" --ignore tests/contracts
