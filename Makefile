# One command to run (make run), one to test (make test), one to train (make train).
# TORCH_INDEX names another index for torch, for example PyTorch's CPU builds: see the README.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
# Two names, so that an index that is named after a first try is asked, too.
TORCH := $(VENV)/.torch$(if $(TORCH_INDEX),-of-index)

.PHONY: run test train install-train evaluate identity bench bench-full bench-raw faults soak fuzz lint format clean

run: $(VENV)/.installed-serve
	$(BIN)/python -m app

# Files are shared out among processes, each of which computes on one core.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Hours on two cores. `python -m training train ... --resume` goes on where a run was stopped.
train: $(VENV)/.installed-train
	$(BIN)/python -m training train vae --epochs 100 --learning-rate 0.002 --precision bfloat16
	$(BIN)/python -m training train cvae
	$(BIN)/python -m training train gan
	$(BIN)/python -m training train gan --name gan-deep --discriminator deep --gradient-penalty 0.1 \
		--discriminator-steps 1 --generator-learning-rate 0.0005 --batch-size 64 --epochs 18
	$(BIN)/python -m training train cgan

# What `python -m training` needs, and no training.
install-train: $(VENV)/.installed-train

# A few minutes a model: the figures in manifests, cards and README.
evaluate: $(VENV)/.installed-train
	$(BIN)/python -m training evaluate $(notdir $(wildcard models/*)) --document README.md

# About ten minutes: a seed gives the same bytes alone, under load, in any batch and after a restart.
identity: $(VENV)/.installed-serve
	$(BIN)/python -m benchmarks identity

# Compare with other servers, under 20 minutes on two cores; needs wrk, see benchmarks/README.md.
bench: $(VENV)/.installed-serve
	$(BIN)/python -m benchmarks serve-bench --form short --fresh

# About two hours; continues after an interruption.
bench-full: $(VENV)/.installed-serve
	$(BIN)/python -m benchmarks serve-bench --form full

# A few minutes: the models without a server.
bench-raw: $(VENV)/.installed-serve
	$(BIN)/python -m benchmarks raw

# Ten minutes of hostile input: says what was slowest, and fails where anything crashed. FUZZ_SECONDS sets the time.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.installed-test
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# About ten minutes: every fault at every load. As root with libfaketime also a full disk and a moving clock.
faults: $(VENV)/.installed-serve
	$(BIN)/python -m benchmarks faults

# Twice the capacity for a minute; `make soak SECONDS=3600` for an hour.
SECONDS ?= 60
soak: $(VENV)/.installed-serve
	$(BIN)/python -m benchmarks soak --seconds $(SECONDS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(TORCH):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11 to 3.13; PYTHON=python3.12 names another"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(BIN)/pip install --quiet torch torchvision --index-url $(TORCH_INDEX)
endif
	touch $@

$(VENV)/.installed-serve: pyproject.toml $(TORCH)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-train: pyproject.toml $(TORCH)
	$(BIN)/pip install --quiet --editable '.[train]'
	touch $@ $(VENV)/.installed-serve

$(VENV)/.installed-test: pyproject.toml $(TORCH)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed-serve $(VENV)/.installed-train
