# Two targets do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
# What each target installs: the quickstart needs no MACE, which brings torch.
QUICKSTART_EXTRAS := ace,md
TEST_EXTRAS := ace,analysis,mace,md,test
# BLAS and OpenMP threads of jobs that share the cores only slow each other down.
export OMP_NUM_THREADS := 1

.PHONY: quickstart test check clean-quickstart

quickstart: $(VENV)/.quickstart
	$(VENV)/bin/aiida-oodal quickstart examples/launch_campaign.py

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.test
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[$(TEST_EXTRAS),dev]'
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: EXTRAS := $(QUICKSTART_EXTRAS)
$(VENV)/.test: EXTRAS := $(TEST_EXTRAS)
$(VENV)/.quickstart $(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# Start from zero: stops the daemon of the quickstart and removes its profile with everything in it.
clean-quickstart:
	[ ! -d .quickstart ] || AIIDA_PATH=$(CURDIR)/.quickstart $(VENV)/bin/verdi daemon stop
	rm -rf .quickstart
