# `make demo` and `make test` are all a newcomer needs: each makes the environment first if it is not there.
#   PYTHON    the Python to build the environment with   (make test PYTHON=python3.12)
#   VENV      where the environment lies                 (default .venv)
#   PIP_ARGS  more arguments for pip install             (an index of CPU-only torch builds, a proxy, …)
#   TESTS     what pytest is given                       (make test TESTS="tests/layers -m 'not reference'")
#   WORKERS   tests at once; default one per core, at most four of about 2 GB each   (make test WORKERS=0: one process)

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
TESTS ?=
WORKERS ?= auto

BIN := $(VENV)/bin
STAMP := $(VENV)/.inflate-installed
# Nothing here may ask a model hub for anything: the weights that demo and tests use ship inside the package.
OFFLINE := HF_HUB_OFFLINE=1 DIFFUSERS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
SAY := @printf '\n==> %s\n'

.DEFAULT_GOAL := help
.PHONY: help env demo test lint format bench clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

env: $(STAMP)  ## the environment in .venv, as demo and test make it

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "error: no program named '$(PYTHON)' was found; install Python 3.11 or newer, or name one: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), and inflate needs Python 3.11 or newer; name a newer one: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make environments because its venv module is missing; on Debian and Ubuntu install it with: apt-get install python3-venv" >&2; exit 2; }
	$(SAY) "Making the environment in $(VENV) with $$("$(PYTHON)" -V 2>&1) (once; several minutes and, with the CUDA build of torch, about 7 GB)"
	@"$(BIN)/python" -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear "$(VENV)"
	$(SAY) "Installing inflate and the versions that constraints.txt names"
	@"$(BIN)/python" -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS) -c constraints.txt -e '.[app,train,dev]'
	@touch "$(STAMP)"

demo: $(STAMP)  ## a short video from a text prompt, with the weights inside the package
	$(SAY) "Making a short video with the bundled model (inflate demo)"
	@$(OFFLINE) "$(BIN)/python" -m inflate demo

test: $(STAMP)  ## the tests that need no GPU and no network
	$(SAY) "Running the tests"
	@$(OFFLINE) "$(BIN)/python" -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(TESTS)

lint: $(STAMP)  ## ruff (rules and format) and pyright
	$(SAY) "Checking rules (ruff check)"
	@"$(BIN)/ruff" check .
	$(SAY) "Checking format (ruff format --check)"
	@"$(BIN)/ruff" format --check .
	$(SAY) "Checking types (pyright)"
	@"$(BIN)/pyright" --pythonpath "$(BIN)/python"

format: $(STAMP)  ## let ruff sort imports and format
	@"$(BIN)/ruff" check --fix .
	@"$(BIN)/ruff" format .

bench: $(STAMP)  ## the benchmarks, each with its floor, on this machine
	$(SAY) "Running the benchmarks (see benchmarks/README.md)"
	@set -e; for file in benchmarks/bench_*.py; do \
		echo "==> $$file"; $(OFFLINE) "$(BIN)/python" "$$file"; \
	done

clean:  ## remove the environment and caches
	rm -rf "$(VENV)" .pytest_cache .ruff_cache .hypothesis build dist
