# `make music` and `make test` need nothing but Python >= 3.11: each sets up .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY := .venv/.ready
# Two workers, and one thread of the linear algebra each, on the two cores of the CI machine.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal

.PHONY: help install native cuda docs tutorial music reproduce report data test test-full test-rest test-pure test-faults test-fuzz test-mutations test-peers test-arm bench gpu-check gpu-first lint clean

help:
	@echo "make music    train suGRU, GRU, LSTM and tanh on Bach's chorales, end in a table"
	@echo "make reproduce  run what the tables of the suRNN paper lack (days; stop it at any time)"
	@echo "make report   write docs/report/index.html and the table of trained models anew from the records"
	@echo "make data     prepare every data set that can be had (Pathfinder32 takes long)"
	@echo "make test     run the test suite; what it compiles is kept in .cache for the next time"
	@echo "make test-full  run all tests, those that take minutes too"
	@echo "make test-rest  run only those that make test leaves out"
	@echo "make test-pure  run the scans' tests without the compiled kernel"
	@echo "make test-faults  kill, damage and fill up; ends in a table of what was lost"
	@echo "make test-arm  run the kernel's test program for ARM in an emulator (qemu-user)"
	@echo "make test-fuzz  break the files of every reader in thousands of ways, for ten minutes"
	@echo "make test-mutations  break the code in some hundred ways, each to be noticed by a test"
	@echo "make test-peers FLAX=FOLDER MEMAX=FOLDER  run their own tests, from checkouts, on our layers"
	@echo "make native   compile the CPU kernel anew, warnings being errors"
	@echo "make cuda     compile the GPU kernel, with CUDA's nvcc; needs no GPU"
	@echo "make bench    race the scans against what others run (about half an hour, alone)"
	@echo "make gpu-check  compile for GPUs that are absent, count launches and memory, compare with a table"
	@echo "make gpu-first  on a GPU: check, time and train, in eight minutes, with your own JAX"
	@echo "make docs     build the documentation in site/, warnings being errors"
	@echo "make tutorial  run the notebook of the documentation anew and keep its outputs"
	@echo "make lint     check style"
	@echo "make install  set up .venv only"
	@echo "make clean    remove .venv, .cache, site and build products; runs/ stays"

install: $(READY)

# The kernel is compiled with the headers of the jaxlib that it will run under, so that comes first.
$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "surnn_jax needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) 'setuptools>=77' jaxlib
	$(PIP) --no-build-isolation -e '.[experiments,tensorboard,test]'
	@touch $(READY)

music: install
	$(BIN)/python -m experiments.music --preset=chorales --workdir=runs/chorales

# Runs what the tables of the suRNN paper lack; the same command goes on after any stop.
reproduce: install
	nice $(BIN)/python -m experiments.reproduce --suite=surnn --jobs=$(WORKERS)

report: install
	$(BIN)/python -m experiments.report_page
	$(BIN)/python -m experiments.pretrained --page=docs/howto/pretrained.md

data: install
	$(BIN)/python -m data.prepare all

test: install
	$(PYTEST) -m "not full"

test-full: install
	$(PYTEST)

test-rest: install
	$(PYTEST) -m full

test-pure: install
	SURNN_NATIVE=0 $(BIN)/python -m pytest -n $(WORKERS) tests/scan \
	  tests/layers/test_layers.py

test-faults: install
	$(BIN)/python -m pytest tests/train/test_faults.py tests/train/test_distributed.py

test-mutations: install
	$(BIN)/python tests/support/mutations.py

test-peers: install
	$(if $(FLAX)$(MEMAX),,$(error name a checkout: FLAX=FOLDER, MEMAX=FOLDER or both))
	$(if $(FLAX),$(BIN)/python tests/peers/flax_suite.py "$(FLAX)")
	$(if $(MEMAX),$(BIN)/python tests/peers/memax_suite.py "$(MEMAX)")

test-arm: install
	$(BIN)/python -m surnn_jax.scan.native.build --check-arm

# About ten minutes; the children of it find its modules by PYTHONPATH.
test-fuzz: install
	PYTHONPATH=.:tests/support $(BIN)/python -m fuzz

native: install
	$(BIN)/python -m surnn_jax.scan.native.build

cuda: install
	$(BIN)/python -m surnn_jax.scan.cuda.build

# What the extra `docs` names; the library itself is there already.
docs: install
	$(PIP) mkdocs-material 'mkdocstrings[python]' playwright
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

tutorial: install
	$(BIN)/python docs/execute.py docs/tutorial.ipynb

# Appends to runs/bench; what is there already stays.
bench: install
	mkdir -p runs/bench
	for what in skip_scan dense_scan inference streaming minimal memory models; do \
	  $(BIN)/python -m benchmarks.$$what --output=runs/bench/bench.jsonl || exit 1; done
	$(BIN)/python -m benchmarks.plot runs/bench/bench.jsonl --plot=runs/bench/skip_scan.png
	$(BIN)/python -m benchmarks.targets runs/bench/bench.jsonl

# JAX's plug-in for CUDA compiles without a GPU. The newest JAX wants a newer Python than .venv may
# have, so it gets an environment of its own.
GPU := .cache/gpu
$(GPU)/.ready: benchmarks/gpu/requirements.txt
	@for name in $(PYTHON) python3 python3.12 python3.13 python3.14; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	    rm -rf $(GPU) && $$name -m venv $(GPU) && exec $(GPU)/bin/python -m pip install --quiet \
	      --disable-pip-version-check -r benchmarks/gpu/requirements.txt; fi; done; \
	  echo "make gpu-check needs Python 3.12 or newer; name one: make gpu-check PYTHON=python3.12" >&2; exit 1
	@touch $(GPU)/.ready

# FLAGS="--devices=rtx4090 --presets=lra" and others, see benchmarks/gpu_check.py.
gpu-check: $(GPU)/.ready
	$(GPU)/bin/python -m benchmarks.gpu_check $(FLAGS)

# The JAX of the machine, whatever is installed there.
gpu-first:
	$(PYTHON) -m benchmarks.first_gpu --folder=runs/first_gpu $(FLAGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv .cache build dist site *.egg-info surnn_jax/scan/native/_kernel.*
