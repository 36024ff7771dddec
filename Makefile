# make run serves the shipped models, make test checks everything, make train trains all models again.

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
INSTALL := $(BIN)/pip install --quiet --constraint $(CONSTRAINTS)
# TORCH_INDEX names the package index of torch and torchvision, empty for PyPI. Where it is not set, a machine without an
# NVIDIA driver gets PyTorch's CPU build, which is several GB smaller.
CPU_INDEX := https://download.pytorch.org/whl/cpu
REACHABLE := $(PYTHON) -c 'import signal, sys, urllib.request; signal.alarm(5); urllib.request.urlopen(sys.argv[1])'
TOOLS := .venv-tools
RESOLVE := $(TOOLS)/bin/uv pip compile --quiet --upgrade --all-extras --no-annotate --no-header

.PHONY: run test pytest test-integration lint format test-lowest constraints audit train install-train evaluate identity bench bench-full \
	bench-raw growth fuzz faults fairness soak drills rules clean

run: $(VENV)/.installed
	$(BIN)/python -m app

test: lint pytest

# Each test process computes on one core.
pytest: export OMP_NUM_THREADS := 1
pytest: $(VENV)/.installed-train,test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Tests that need other programs: Chromium, HAProxy, Prometheus, Ray, kubectl, clients of the Open Inference Protocol. On
# Debian, missing programs are installed.
PROGRAMS := chromium dnsmasq haproxy ip prometheus promtool wrk
PACKAGES := chromium dnsmasq-base haproxy iproute2 prometheus wrk
test-integration: export OMP_NUM_THREADS := 1
test-integration: $(VENV)/.installed-train,test,integration
	@for program in $(PROGRAMS); do command -v $$program >/dev/null || missing=$$program; done; \
	[ -z "$$missing" ] || { apt-get update && apt-get install --yes --no-install-recommends $(PACKAGES); } || \
		{ echo "make test-integration needs $(PROGRAMS); as root: apt-get install $(PACKAGES)"; exit 1; }
	$(BIN)/python -m pytest tests/integration

lint: $(VENV)/.installed-train,test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.installed-train,test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tests with the lowest versions that pyproject.toml admits.
test-lowest: $(TOOLS)
	mkdir -p build
	$(RESOLVE) --resolution lowest-direct --python-version $(VERSION) pyproject.toml --output-file build/lowest.txt
	$(MAKE) pytest VENV=.venv-lowest CONSTRAINTS=build/lowest.txt

# The newest versions of all but torch, on which the bytes of a seed depend: it is raised by hand in constraints.txt.
# torch itself pins the CUDA packages that its build needs. Tests have two separate environments.
constraints: $(TOOLS)
	grep -E '^torch(vision)?==' constraints.txt | $(RESOLVE) --universal --python-version 3.11 \
		pyproject.toml - --output-file constraints.txt
	sed -i -E '/^(cuda|nvidia|triton)-?/d' constraints.txt
	for folder in clients checkov; do (cd tests/integration/$$folder && $(CURDIR)/$(TOOLS)/bin/uv pip compile --quiet --upgrade \
		--universal --python-version 3.11 --no-annotate requirements.in --output-file requirements.txt) || exit 1; done

# Known vulnerabilities of the versions in constraints.txt.
audit: $(TOOLS)
	@$(REACHABLE) https://osv.dev 2>/dev/null || { echo "make audit needs the vulnerability database osv.dev, which cannot be reached"; exit 1; }
	$(TOOLS)/bin/pip-audit --vulnerability-service osv --requirement constraints.txt --no-deps --disable-pip

# Hours on two cores. `python -m training train ... --resume` continues a run that was stopped.
train: $(VENV)/.installed-train
	$(BIN)/python -m training train vae --epochs 100 --learning-rate 0.002 --precision bfloat16
	$(BIN)/python -m training train cvae
	$(BIN)/python -m training train autoencoder
	$(BIN)/python -m training train gan
	$(BIN)/python -m training train gan --name gan-deep --discriminator deep --gradient-penalty 0.1 --shared-fakes \
		--generator-learning-rate 0.0005 --discriminator-learning-rate 0.001 --adam-beta2 0.99 --epochs 18
	$(BIN)/python -m training train gan-mlp
	$(BIN)/python -m training train dcgan
	$(BIN)/python -m training train lapgan
	$(BIN)/python -m training train lapgan --size 14
	$(BIN)/python -m training train lapgan --size 7 --epochs 20
	$(BIN)/python -m training train cgan
	$(BIN)/python -m training train cgan --dataset fashion-mnist --epochs 12 --evaluate-every 4
	$(BIN)/python -m training train dbn
	$(BIN)/python -m training train lenet
	$(BIN)/python -m training train vgg
	$(BIN)/python -m training train srgan
	$(BIN)/python -m training train srgan --factor 2 --epochs 4
	$(BIN)/python -m training train pixelcnn
	$(BIN)/python -m training train flow
	$(BIN)/python -m training train flow-matching

# The dependencies of `python -m training`.
install-train: $(VENV)/.installed-train

# The quality figures in manifests, cards and docs/quality.md: a few minutes per model.
evaluate: $(VENV)/.installed-train
	$(BIN)/python -m training evaluate $(notdir $(wildcard models/*)) --document docs/quality.md

# About ten minutes: a seed gives the same bytes alone, under load, in any batch and after a restart.
identity: $(VENV)/.installed
	$(BIN)/python -m benchmarks identity

# Compare with other servers, under 20 minutes on two cores; needs wrk, see benchmarks/README.md.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks serve-bench --form short --fresh

# About an hour; continues after an interruption.
bench-full: $(VENV)/.installed
	$(BIN)/python -m benchmarks serve-bench --form full

# A few minutes: the models without a server.
bench-raw: $(VENV)/.installed
	$(BIN)/python -m benchmarks raw

# Under five minutes: speed and memory over the numbers of processes, callers and models; needs wrk.
growth: $(VENV)/.installed
	$(BIN)/python -m benchmarks growth

# Hostile input for FUZZ_SECONDS. Reports the slowest input, and fails if any input crashed the service.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.installed-train,test
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# About ten minutes: every fault at every load. As root with libfaketime also a full disk and a moving clock.
faults: $(VENV)/.installed
	$(BIN)/python -m benchmarks faults

# About ten minutes: attacks by 8, 64 and 256 connections, and what honest callers see of them.
fairness: $(VENV)/.installed
	$(BIN)/python -m benchmarks fairness

# Twice the capacity for a minute; `make soak SECONDS=3600` for an hour.
SECONDS ?= 60
soak: $(VENV)/.installed
	$(BIN)/python -m benchmarks soak --seconds $(SECONDS)

# Several minutes, as root: replicas in network namespaces behind the proxy of deploy/kubernetes; needs haproxy, dnsmasq, wrk.
drills: $(VENV)/.installed
	$(BIN)/python -m benchmarks drills

# deploy/prometheus/rules.yml as a resource of the Prometheus operator.
RULE := deploy/kubernetes/components/monitoring/prometheusrule.yaml
rules:
	printf '%s\n' '# Written by `make rules` from deploy/prometheus/rules.yml.' 'apiVersion: monitoring.coreos.com/v1' \
		'kind: PrometheusRule' metadata: '  name: digits' '  labels:' '    app.kubernetes.io/name: digits' spec: >$(RULE)
	sed 's/^\(.\)/  \1/' deploy/prometheus/rules.yml >>$(RULE)

clean:
	rm -rf $(VENV) .venv-lowest $(TOOLS) build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# Another Python version makes a new environment.
$(VENV)/.python-$(VERSION):
	@case "$(VERSION)" in 3.1[123]) ;; *) \
		echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; PYTHON=python3.12 names another"; exit 1 ;; esac
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/.torch: $(CONSTRAINTS) $(VENV)/.python-$(VERSION)
	@index='$(TORCH_INDEX)'; \
	if [ '$(origin TORCH_INDEX)' = undefined ] && [ ! -e /proc/driver/nvidia ] && ! command -v nvidia-smi >/dev/null; then \
		if $(REACHABLE) $(CPU_INDEX)/torch/ 2>/dev/null; then \
			index=$(CPU_INDEX); echo "No NVIDIA driver: installing PyTorch's CPU build."; \
		else \
			echo "No NVIDIA driver, but $(CPU_INDEX) cannot be reached: installing PyPI's build of PyTorch, with CUDA."; \
		fi; \
	fi; \
	[ -z "$$index" ] || $(INSTALL) --no-deps --index-url "$$index" torch torchvision
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.torch
	$(INSTALL) --editable '.[$*]'
	touch $@

$(TOOLS):
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet pip-audit uv || { rm -r $@; exit 1; }
