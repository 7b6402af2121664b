# Two targets do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
EXTRAS := ace,md,test
# BLAS and OpenMP threads of jobs that share the cores only slow each other down.
export OMP_NUM_THREADS := 1

.PHONY: quickstart test check install clean-quickstart

quickstart: install
	$(VENV)/bin/aiida-oodal quickstart examples/launch_campaign.py

test: install
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

check: install
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),dev]'
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# Start from zero: stops the daemon of the quickstart and removes its profile with everything in it.
clean-quickstart:
	[ ! -d .quickstart ] || AIIDA_PATH=$(CURDIR)/.quickstart $(VENV)/bin/verdi daemon stop
	rm -rf .quickstart
