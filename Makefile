# `make` lists the targets. Environments are rebuilt only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
DEV := .venv-dev
GPU := .venv-gpu
BENCHMARKS := $(filter-out benchmarks/interleaved.py benchmarks/naive_core.py benchmarks/gpu_suite.py benchmarks/soak.py benchmarks/stops.py benchmarks/long_recording.py,$(wildcard benchmarks/*.py))
PIP_FLAGS := --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types arrows docs bench soak stops test-gpu test-pythons clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(VENV)/.stamp ## make .venv with what the demo needs (no torch)

demo: setup ## 30 episodes of the simulated robot, and a report in report/
	$(VENV)/bin/v2a demo --episodes 30 --report report

# Where a worker runs on each core, more threads only wait for each other. Files with few tests are the
# longest ones, so they must not come last, as xdist would have it.
test: check ## check, then every test
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -q -m 'not real_time' -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	$(DEV)/bin/pytest -q -m 'real_time and not alone' -n 2 --dist worksteal
	$(DEV)/bin/pytest -q -m alone

check: lint types arrows docs ## the gate without the tests: lint, types, room arrows, docs site

lint: $(DEV)/.stamp ## ruff: rules and format
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

types: $(DEV)/.stamp ## mypy, strict: rooms, tests, benchmarks and tools
	$(DEV)/bin/mypy

arrows: $(DEV)/.stamp ## import-linter: which room may import which
	$(DEV)/bin/lint-imports

docs: $(DEV)/.stamp ## the docs site in build/site; a broken link fails
	$(DEV)/bin/mkdocs build --quiet --strict

bench: $(DEV)/.stamp ## run every benchmark
	@for file in $(BENCHMARKS); do echo "== $$file"; $(DEV)/bin/python $$file || exit 1; done

soak: $(DEV)/.stamp ## MINUTES=30: a robot under load and faults; what must never happen
	PYTHONPATH=. $(DEV)/bin/python benchmarks/soak.py --minutes $(or $(MINUTES),30)

stops: $(DEV)/.stamp ## ROUNDS=20: every source of a stop in every state of a run
	PYTHONPATH=. $(DEV)/bin/python benchmarks/stops.py --rounds $(or $(ROUNDS),20)

test-gpu: $(GPU)/.stamp ## what needs an NVIDIA GPU; skips, loudly, without one
	$(GPU)/bin/pytest -q -rs tests/gpu

test-pythons: ## the robot-side tests, without torch, on Python 3.10, 3.11 and 3.12 or PYTHONS=...
	tools/robot_pythons.sh $(PYTHONS)

clean: ## remove the environments and the report
	rm -rf $(VENV) $(DEV) $(GPU) .venv-py3* report

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(PIP_FLAGS) -e '.[cpu,vision,demo]'
	touch $@

$(DEV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install $(PIP_FLAGS) -e '.[cpu,vision,demo,export,validate,lerobot,rerun,docs,dev]'
	touch $@

# System packages, as a Jetson's TensorRT is one.
$(GPU)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --system-site-packages $(GPU)
	$(GPU)/bin/pip install $(PIP_FLAGS) -e '.[cpu,jetson,validate,dev]'
	touch $@
