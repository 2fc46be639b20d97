# surgeon: `make demo` shows what it does, `make test` proves it. Both set everything up in .venv.

TORCH  ?= torch==2.13.0
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV   ?= .venv
JOBS   ?= 2

BIN    := $(VENV)/bin
MODEL  := examples/models/tiny-1m
OUT    ?= demo-out/tiny-1m-small

# One thread a process: the test suite runs in $(JOBS) processes.
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup setup-dev demo test lint check format docs clean

help:
	@echo "make demo    prune the small model that the repository ships, and show what became of it"
	@echo "make test    lint, build the docs, run the tests"
	@echo "make lint    ruff"
	@echo "make check   ruff, pyright"
	@echo "make docs    build the documentation into site/"
	@echo "make format  let ruff rewrite the sources"
	@echo "make clean   remove everything that make has made"
	@echo "variables    TORCH='$(TORCH)' PYTHON='$(PYTHON)' VENV='$(VENV)' JOBS='$(JOBS)'"

# Stamps: each set-up step runs once, and again when what it depends on has changed.
$(VENV)/.torch: Makefile
	@test -n "$(PYTHON)" || { echo "no Python found: install Python 3.11, or make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.project: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.project
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[dev,docs]"
	@touch $@

setup: $(VENV)/.project

setup-dev: $(VENV)/.dev

demo: setup
	rm -rf $(OUT)
	$(BIN)/surgeon run recipes/demo.yaml --model $(MODEL) --out $(OUT)

lint: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: lint
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: setup-dev
	$(BIN)/mkdocs build --quiet --strict --clean

test: lint docs
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist site demo-out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find surgeon tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
