# Everything that these targets write stays in this folder: the environment in .venv, caches in .cache.

PYTHON ?= python3
# A build of torch by its name on PyTorch's own index (cpu, cu126, cu128, ...); without it, pip's default build.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/$(TORCH)
# Passed on to pytest last, so it overrides: make test PYTEST_ARGS="-m slow -k resume"
PYTEST_ARGS ?=

BIN := .venv/bin
# The environment is ready when it was made in this folder from these very files; a changed one is installed anew.
KEY := $(shell (pwd; cat setup.cfg pyproject.toml requirements.lock) | cksum | cut -d ' ' -f 1)
READY := .venv/ready-$(KEY)$(addprefix -,$(TORCH))

export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export XDG_CACHE_HOME := $(CURDIR)/.cache
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.cache/inductor

# Held here, on the command line: setup.cfg holds every other setting, and ruff cannot read it.
# S301, S602, S605: no pickle, no shell. RUF001-003 would forbid the multiplication sign in prose.
RUFF := --isolated --config line-length=120 --config 'target-version="py311"'
RUFF_RULES := --select E,W,F,I,B,C4,FIX,PIE,RUF,S301,S602,S605,SIM,T10,UP --ignore RUF001,RUF002,RUF003

.DEFAULT_GOAL := help
.PHONY: help demo test lint format clean
.SILENT:

help:  ## list the targets
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	echo "  PYTHON=python3.12 picks the Python of a new .venv, TORCH=cu126 (or cpu, cu128, ...) the build of torch."

demo: $(READY)  ## train on the embedded handwritten digits and write a report
	$(BIN)/infogan demo

test: $(READY)  ## run the tests, but not the slow ones
	mkdir -p .cache
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --basetemp=.cache/tests -n logical --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

lint: $(READY)  ## check style, formatting and types
	$(BIN)/python -m ruff check $(RUFF) $(RUFF_RULES) .
	$(BIN)/python -m ruff format $(RUFF) --check .
	$(BIN)/python -m mypy

format: $(READY)  ## format the code and repair what can be repaired
	$(BIN)/python -m ruff check $(RUFF) $(RUFF_RULES) --fix .
	$(BIN)/python -m ruff format $(RUFF) .

clean:  ## remove the environment and every cache, but no data and no runs
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# setuptools comes first because --no-build-isolation uses the one in .venv: that is what lets a repeated install work
# without the network. A second run of the same command finds the file and does nothing at all.
$(READY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' is not Python 3.11 or newer; name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu it needs: apt install python3-venv" >&2; exit 1; }
	rm -f .venv/ready-*
	echo "Installing into .venv (a few minutes the first time) ..."
	$(BIN)/python -m pip install $(if $(CI),--quiet) -c requirements.lock setuptools
ifneq ($(TORCH),)
	$(BIN)/python -m pip install $(if $(CI),--quiet) -c requirements.lock --extra-index-url $(TORCH_INDEX) \
	  $$(sed -n -e '/^torch==/s/$$/+$(TORCH)/p' -e '/^torchvision==/s/$$/+$(TORCH)/p' requirements.lock)
endif
	$(BIN)/python -m pip install $(if $(CI),--quiet) -c requirements.lock --no-build-isolation -e '.[dev]'
	rm -rf .cache/pip
	touch .venv/ready-$(KEY) $@
