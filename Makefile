# One virtual environment in .venv, holding exactly what the locks in requirements/ name; every target can be repeated at no cost.

PYTHON ?= python3
ARGS ?= --methods grun_npo,npo
PYTEST_ARGS ?=

VENV := .venv
IN_VENV := $(VENV)/bin/python
INSTALL := $(IN_VENV) -m pip --disable-pip-version-check --no-input install --no-compile  # Python compiles what it imports

# Containers often set it; no process would keep what it compiles, and every one would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# A stamp is named after what its locks hold, so that a changed lock asks for an install whatever the dates of the files are.
checksum = $(shell cat $(1) | cksum | cut -d ' ' -f 1)
MAIN := $(VENV)/installed-main-$(call checksum,requirements/main.lock)
DEV := $(VENV)/installed-dev-$(call checksum,requirements/main.lock requirements/dev.lock)

CHECK_OUT ?= build/check

.PHONY: setup run test check lock clean

setup: $(MAIN)

run: setup
	$(IN_VENV) run_all.py $(ARGS)

# Types are checked, on one core, while the tests run.
test: $(DEV)
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m ruff format --check .
	@$(IN_VENV) -m pyright --pythonpath $(IN_VENV) & types=$$!; tests=0; \
	$(IN_VENV) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) || tests=$$?; \
	wait $$types || { echo "pyright: errors in the types, above" >&2; exit 1; }; exit $$tests

# The gate. Every cell anew: finished ones may be of older code.
check: setup
	$(IN_VENV) run_all.py --check results/baseline.json --fresh --out $(CHECK_OUT)

# Made anew, never mended: what an install that was cut off has left behind can look complete to pip.
$(MAIN):
	@$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Lethe needs Python 3.11 or \
	newer with its venv module, and '$(PYTHON)' is not that; name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "$$(grep '^torch==' requirements/main.lock)"
	$(INSTALL) -r requirements/main.lock
	@touch $@

$(DEV): $(MAIN)
	@rm -f $(VENV)/installed-*
	$(INSTALL) -r requirements/main.lock -r requirements/dev.lock
	@touch $(MAIN) $@

lock:
	$(PYTHON) requirements/relock.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
