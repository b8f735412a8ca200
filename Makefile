# Hive: everything a developer or CI runs. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DEFAULT_GOAL := help

# The Python that .venv is made with, 3.11 or newer: make venv PYTHON=/path/to/python3.12
PYTHON ?= python3
export PYTHON

BIN := .venv/bin
# More for pytest: make test ARGS='-k proxy -x'
ARGS ?=
PYTEST = $(BIN)/python -m pytest --durations=10 --durations-min=2 --junit-xml=build/$@.xml \
	--numprocesses 2 --dist loadfile

step = echo "== $(1)"

.PHONY: help
help:
	@colour=; plain=; \
	if [[ -t 1 && -z "$${NO_COLOR:-}" ]]; then colour=$$'\e[36m'; plain=$$'\e[0m'; fi; \
	echo "Usage: make TARGET"; \
	awk -F ':.*## ' -v on="$$colour" -v off="$$plain" \
	  '/^[a-z][a-z-]*:.*## / { printf "  %s%-10s%s %s\n", on, $$1, off, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup packages-venv packages-deb packages-demo packages-natlab packages-test
setup: packages-test venv ## install all that development needs: Debian packages (as root) and .venv

# What only root can install; each says what is missing, and does nothing when nothing is.
packages-venv packages-deb packages-demo packages-natlab packages-test: packages-%:
	@scripts/setup $*

.PHONY: venv
venv: packages-venv ## make or refresh .venv, with hived and hivectl in it
	@scripts/venv

.PHONY: lint
lint: venv ## check style, types, the import contracts and the locks
	@scripts/lint

.PHONY: format
format: venv ## let ruff format the code and mend what it safely can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: test
test: packages-test venv ## run the tests, all but the long ones (ARGS='-k NAME' for some)
	@scripts/interop
	@$(call step,pytest: all but the long tests)
	@$(PYTEST) -m "not full and not alone" $(ARGS)

.PHONY: test-full
test-full: packages-test venv ## run all tests, the long ones too (ONLY=full for these alone)
	@scripts/interop
	@$(call step,pytest: $(if $(ONLY),the tests marked $(ONLY),all tests))
	@status=0; $(PYTEST) -m "$(if $(ONLY),$(ONLY) and )not alone" $(ARGS) || status=$$?; \
	if [[ $$status = 5 && -n "$(ONLY)" ]]; then echo "no test is marked $(ONLY) yet"; else exit $$status; fi

.PHONY: native
native: venv ## compile the data plane (1 minute); hived uses it until its sources change
	@$(BIN)/python scripts/native.py

.PHONY: deb
deb: packages-deb ## build the Debian package into dist/ (a minute; ARGS='--version 0.2.0' for tests of upgrades)
	@scripts/deb $(ARGS)

.PHONY: fuzz
fuzz: venv ## fuzz what reads from strangers, FUZZ_SECONDS each (60); KEEP=1 keeps what is found
	@scripts/fuzz $(ONLY)

.PHONY: simulate
simulate: venv ## simulate 10 to 2,000 nodes (25 minutes); tables and chart to docs/ (ARGS='--sizes 10,100')
	@scripts/bench simulate $(ARGS)

.PHONY: bench-join
bench-join: venv ## 200 strangers a second against a node that works (3 minutes); results to bench/results/
	@scripts/bench join --out bench/results $(ARGS)

.PHONY: bench
bench: packages-test venv ## Hive beside ssh, Kubo and others (25 minutes); results to bench/results/ (ARGS='--rounds 1')
	@scripts/bench forwarding --out bench/results $(ARGS)

.PHONY: bench-relayed
bench-relayed: packages-test venv ## 1 GiB through a relay and directly, side by side (3 minutes, root); to bench/results/
	@$(BIN)/python -m bench.relayed $(ARGS)

.PHONY: soak
soak: packages-test venv ## 10 GiB each way through one proxied connection, and stalls of a minute (SOAK_GIB=1 for less)
	@SOAK_GIB=$${SOAK_GIB:-10} $(BIN)/python -m pytest -q --timeout 3600 tests/integration/test_dataplane.py $(ARGS)

.PHONY: scale
scale: packages-test venv ## 50 nodes behind NATs and three relays, of which one dies (5 minutes, root)
	@$(BIN)/python -m pytest -q -s -m alone tests/netns/test_scale.py $(ARGS)

.PHONY: natmatrix
natmatrix: packages-test venv ## hole punching between kinds of NATs, 20 tries each (20 minutes, root); to docs/
	@$(BIN)/python -m tests.netns.natmatrix $(ARGS)

.PHONY: demo
demo: packages-demo venv ## two nodes here join a network; one serves a web page through the other
	@scripts/demo

.PHONY: natlab
natlab: packages-natlab venv ## open a lab of NATs with nodes in it, as root (ARGS='--lan home=prc --delay 20', ARGS=--help)
	@scripts/natlab $(ARGS)

.PHONY: machine
machine: packages-test venv ## boot a machine with systemd and Hive, as root, and open a shell (ARGS='--machines 2', ARGS=--help)
	@$(BIN)/python -m tests.system.shell $(ARGS)

.PHONY: lock
lock: venv ## make requirements/*.txt anew from the *.in files (UPGRADE=1: with newer versions)
	@scripts/lock $(if $(UPGRADE),--upgrade)

.PHONY: image
image: ## build the container image localhost/hive with podman
	@podman build --format docker --file packaging/container/Containerfile --tag localhost/hive .

.PHONY: clean
clean: ## remove what these targets made, .venv included
	@echo "removing .venv, build, dist and caches"
	@rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
