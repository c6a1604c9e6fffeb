# make demo   install and run the main job: two policies trained side by side
# make test   install and run every check: lint, types, tests, documentation
# Pages are tested in a browser: the machine's Chromium or Chrome, CHROME=path, or one that is installed.
# Tests run in WORKERS processes of one thread each (2 by default).
# The environment is made in .venv from pyproject.toml and constraints.txt; nothing else is touched, but
# for a browser where there is none (.ci/browser).

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg

.PHONY: demo test lint types unit browser docs format clean

demo: $(VENV)/.installed
	$(BIN)/python examples/first_light.py

test: lint types unit docs
	@echo "All checks passed."

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev $(VENV)/.browser
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

# the part of `unit` that needs a Chromium or Chrome
browser: $(VENV)/.installed-dev $(VENV)/.browser
	$(BIN)/pytest tests/test_play_browser.py

docs: $(VENV)/.installed-dev
	$(BIN)/vantage play --out docs/play/article.html --no-open
	$(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "Vantage needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.browser: $(VENV)/.installed-dev
	.ci/browser $(BIN)/python
	@touch $@

clean:
	rm -rf $(VENV) site build dist
