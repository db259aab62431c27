# The whole developer interface. Needs make and Python 3.11 or newer; everything else is brought into .venv.
#   make PYTHON=python3.13 run      picks the interpreter .venv is made with

PYTHON ?= python3
# What `make test` hands to pytest, for example: make test ARGS="-k invoice -x"
ARGS ?=
PYTEST_WORKERS ?= auto

PY := .venv/bin/python
# Exists when .venv has what pyproject.toml and uv.lock ask for.
READY := .venv/.ready

# The environment is this project's own, whatever else is active in the shell.
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help run test check format bench migration .venv

help: ## list the commands
	@sed -n 's/^\([a-z.]*\):.*## /  make \1|/p' Makefile | column -t -s '|' 2>/dev/null || grep '## ' Makefile

run: $(READY) ## run Ledger: PostgreSQL (unless DATABASE_URL is set), API and worker
	@.venv/bin/ledger run

test: $(READY) ## run all tests, on LEDGER_TEST_DATABASE_URL or a PostgreSQL of their own
	$(PY) -m pytest -n $(PYTEST_WORKERS) $(ARGS)

check: $(READY) ## format, lint, types, import order, migrations equal to the schema
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m ledger.database.drift

format: $(READY) ## format the code and correct what can be corrected
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: $(READY) ## measure speed, as ratios to pgbench on this machine
	$(PY) -m bench $(ARGS)

migration: $(READY) ## write the missing migration: make migration m="add refunds"
	@test -n "$(m)" || { echo 'Say what the migration does: make migration m="add refunds"' >&2; exit 2; }
	$(PY) -m ledger.database.drift "$(m)"

.venv: $(READY) ## build the environment

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Ledger needs Python 3.11 or newer, and $(PYTHON) is not: name one, as in make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(PY) && $(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { \
	  echo "Python cannot make virtual environments here: install its venv module (python3-venv on Debian)" >&2; exit 2; }
	@command -v uv >/dev/null || test -x .venv/bin/uv || $(PY) -m pip install --quiet --disable-pip-version-check uv
	@PATH="$(CURDIR)/.venv/bin:$$PATH" uv sync --quiet --frozen --inexact --compile-bytecode --extra embedded --python $(PY)
	@touch $@
