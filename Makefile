# Everything a stranger with Python >= 3.11 and make needs.  `make` alone says what there is.
#
# The environment is .venv, made by tools/environment.sh; two stamps in it say what was installed, so
# nothing is installed twice.  PYTHON=/path/to/python3 chooses another interpreter.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test bench lint golden drill vm install-user uninstall-user clean moved

PY := .venv/bin/python
INSTALLED_FROM := pyproject.toml constraints.txt tools/environment.sh $(wildcard workers/sdk/pyproject.toml workers/tabular/pyproject.toml)
TYPED := mosaicd mosaicctl workers/sdk/mosaic_worker workers/tabular demo benchmarks tests packaging/systemd

# One second of a drill is worth little and a hung one costs a whole CI slot: the set as a whole is bounded.
DRILL_LIMIT_S ?= $(if $(KILLS),$(shell expr 1200 + $(KILLS)),1200)
KILLS ?=
SEED ?=
ARGS ?=

# A checkout that was moved or copied has an environment that points elsewhere.
ifneq ($(wildcard .venv/home),)
ifneq ($(shell cat .venv/home),$(CURDIR))
MOVED := moved
endif
endif

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

demo: .venv/run.stamp ## a private daemon trains a Taxi agent before your eyes (ARGS=--help for more)
	@$(PY) demo/demo.py $(ARGS)

test: lint ## lint, types and every test but the slow drills (ARGS="-k pause" to choose)
	@env -u PYTHONUNBUFFERED $(PY) -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

# KILLS=10000 makes the kill drill longer (the limit grows with it), SEED=7 replays one that failed.
# How far one is can be seen by hand: python -m tests.faults.drill --kills 10000 --seed 7
drill: export MOSAIC_DRILL_KILLS := $(KILLS)
drill: export MOSAIC_DRILL_SEED := $(SEED)
drill: .venv/dev.stamp ## the slow tests: floods, kills by the thousand (KILLS=n SEED=n), a wheel in a fresh environment
	@env -u PYTHONUNBUFFERED timeout --kill-after=20 $(DRILL_LIMIT_S) $(PY) -m pytest -m slow -n 2 --dist load $(ARGS)

vm: .venv/dev.stamp ## containment in a virtual machine, with limits of control groups version 2 (ARGS="-k oom" to choose)
	@$(PY) tests/containment/vm/machine.py $(PY) -m pytest --color=no -p no:cacheprovider \
		-m "slow or not slow" --timeout=600 tests/containment tests/systemd/test_containment.py $(ARGS)

bench: .venv/dev.stamp ## measure it beside plain subprocesses and cat (ARGS=--help for more)
	@$(PY) -m benchmarks $(ARGS)

lint: .venv/dev.stamp ## ruff and mypy --strict
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy --no-error-summary $(wildcard $(TYPED))

golden: .venv/dev.stamp ## write tests/golden/*.txt anew: all sentences of the programs; then read the diff
	@$(PY) -m tests.golden

install-user: .venv/run.stamp ## put the systemd user units in place
	@$(PY) packaging/systemd/install_user.py install

uninstall-user: ## take the systemd user units away again (runs and records stay)
	@$(or $(PYTHON),python3) packaging/systemd/install_user.py uninstall

clean: ## remove the environment and every cache
	@rm -rf .venv .make build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/run.stamp: $(INSTALLED_FROM) $(MOVED)
	@tools/environment.sh run
	@touch $@

.venv/dev.stamp: .venv/run.stamp $(INSTALLED_FROM) $(MOVED)
	@tools/environment.sh dev
	@touch $@
