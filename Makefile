# Two commands: `make run` starts the app, `make check` is what a change must pass.
# They need make and Python 3.11 or 3.12 (name one with `make run PYTHON=...`), nothing else.

VENV ?= .venv
PYTHON ?= python3 python3.12 python3.11 python
ARGS ?=
BIN := $(VENV)/bin
# 1 leaves warnings, 2 errors only.
export PIP_QUIET ?= 1
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

.DEFAULT_GOAL := help
.PHONY: help run check style

help:
	@echo "make run    install into $(VENV) and start the app; pass options with ARGS=\"--port 8000\""
	@echo "make check  lint, types, import rules, tests with coverage"
	@echo "make style  rewrite the code in the project's format"

run: $(VENV)/.run-installed
	@$(BIN)/python app.py $(ARGS)

check: $(VENV)/.check-installed
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --numprocesses 2 --dist loadfile --no-loadscope-reorder

style: $(VENV)/.check-installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# A stamp is newer than what it installed, so a changed pin installs again.
$(VENV)/.run-installed: requirements.txt | $(BIN)/python
	@echo "Installing the application into $(VENV): some gigabytes and minutes, once." >&2
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.check-installed: requirements.txt requirements-dev.txt | $(BIN)/python
	@echo "Installing the application and its tools into $(VENV): some gigabytes and minutes, once." >&2
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/.run-installed

# A name may be on the PATH and not work (pyenv's shims, Debian without python3-venv): try each.
$(BIN)/python:
	@for candidate in $(PYTHON); do \
	    if "$$candidate" -c '$(FITS)' >/dev/null 2>&1; then \
	        exec "$$candidate" -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "No fitting Python: tried $(PYTHON); 3.11 or 3.12 with the venv module is needed." >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3-venv) or name it:" >&2; \
	echo "make run PYTHON=python3.12" >&2; \
	exit 2
