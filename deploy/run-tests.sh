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

# Contracts run in a Python EVM, alone with a processor; the rest waits more than it computes. So they run beside it, with what it
# leaves, and are told of at the end. Measuring coverage would slow them down for nothing: no line of the package runs there.
told=$(mktemp)
nice -n 15 $bin/pytest -p no:cacheprovider --timeout 900 -m "not nightly" tests/contracts >"$told" 2>&1 &
contracts=$!
trap 'kill "$contracts" 2>/dev/null || true; rm -f "$told"' EXIT

step "units, services, end to end"
# Counting lines slows everything by a fifth, so that is done when asked for. Enclaves, workers and commands run in processes of
# their own, which the figure does not count.
coverage=()
if [ "${1:-}" = coverage ]; then coverage=(--cov --cov-report=term --cov-fail-under=75); fi
failed=0
$bin/pytest -p no:cacheprovider -n 3 --dist loadgroup --timeout 300 -m "not nightly" \
  --durations 30 --durations-min 5 "${coverage[@]}" --ignore tests/contracts || failed=$?

step "contracts"
wait "$contracts" || failed=$?
cat "$told"
exit "$failed"
