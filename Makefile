# `make quickstart`, `make test` and `make docs` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV := .venv
# What each target installs: the quickstart needs no MACE, which brings torch.
QUICKSTART_EXTRAS := ace,md
DOCS_EXTRAS := docs
TEST_EXTRAS := ace,analysis,docs,mace,md,qe,shell,test,vasp,xtb
# BLAS and OpenMP threads of jobs that share the cores only slow each other down.
export OMP_NUM_THREADS := 1

.PHONY: quickstart test check docs clean-quickstart

quickstart: $(VENV)/.quickstart
	$(VENV)/bin/aiida-oodal quickstart examples/launch_campaign.py

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.test
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[$(TEST_EXTRAS),dev]'
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

# The site, with every warning an error: docs/_build/html/index.html.
docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: EXTRAS := $(QUICKSTART_EXTRAS)
$(VENV)/.docs: EXTRAS := $(DOCS_EXTRAS)
$(VENV)/.test: EXTRAS := $(TEST_EXTRAS)
$(VENV)/.docs $(VENV)/.quickstart $(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# Start from zero: stops the daemon of the quickstart and removes its profile with everything in it.
clean-quickstart:
	[ ! -d .quickstart ] || AIIDA_PATH=$(CURDIR)/.quickstart $(VENV)/bin/verdi daemon stop
	rm -rf .quickstart
