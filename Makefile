# Two commands do all: `make demo` and `make check`. Each makes what it needs; `make help` lists the others.

VENV ?= .venv
# The first that is new enough; any other by `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; \
    done; echo python3)
# Options for pytest; two processes, because most tests wait for something: make test PYTEST_ARGS="-k queue"
PYTEST_ARGS ?= -n2
# make lock UPGRADE=--upgrade, or UPGRADE="--upgrade-package trio"
UPGRADE ?=
DEB_REVISION ?= 1

BIN := $(VENV)/bin

# Stamps: what to run, this project in it, what to check with.
RUN := $(VENV)/.run
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.dev

# Environments of their own: with the daemon's rivals; the SDK's on an older Python; what makes the lock files.
BENCH_VENV := .venvs/bench
BENCH_RUN := $(BENCH_VENV)/.run
BENCH := $(BENCH_VENV)/.installed
SDK_VENV := .venvs/sdk
SDK_PYTHON ?= python3.10
SDK := $(SDK_VENV)/.run
UV_VENV := .venvs/uv
UV := $(UV_VENV)/.run

# pip in an environment. A lock file is installed as it is, whatever else an index serves that day: nothing is resolved,
# and nothing built, for that would need build tools that no lock lists.
pip = $(1)/bin/python -m pip --disable-pip-version-check --no-input -qq install
LOCKED := --require-hashes --no-deps --only-binary=:all: -r

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo check check-system test-sdk vm-shell format format-check lint types contracts test coverage wheel deb lock bench bench-quick soak clean

help:  ## this list
	@awk -F ':.*## *' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED)  ## clients that contend for a simulated port, in about ten seconds
	@$(BIN)/lptd demo

# Two at a time, tests first: they take longest. Every part runs, so that one call shows all that is wrong.
check: $(INSTALLED) $(DEV)  ## format, lint, types, import contracts, tests; about three minutes
	@$(MAKE) -j2 -k --output-sync=target test types contracts lint format-check
	@echo "check: all is well"

check-system: $(INSTALLED) $(DEV)  ## what takes longer or needs system packages; the suite on every other Python found
	@MAKE="$(MAKE)" tests/system/run.sh

vm-shell: $(INSTALLED) $(DEV)  ## a shell in the virtual machine of the tests (docs/testing.md)
	@$(BIN)/python -m tests.vm.shell

format: $(DEV)  ## rewrite the code in the one format, imports in order
	@$(BIN)/ruff check --quiet --select I --fix
	@$(BIN)/ruff format

format-check: $(DEV)
	@$(BIN)/ruff format --check

lint: $(DEV)  ## ruff
	@$(BIN)/ruff check

# The second run sees what the SDK's users have: an older Python, on Windows.
types: $(INSTALLED) $(DEV)  ## mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version 3.10 --platform win32 lpt_service/__init__.py lpt_service/protocol clients/lpt_client

contracts: $(INSTALLED) $(DEV)  ## who may import whom (pyproject.toml, tool.importlinter)
	@$(BIN)/lint-imports --no-logo

test: $(INSTALLED) $(DEV)  ## pytest, warnings as errors
	@$(BIN)/pytest -q $(PYTEST_ARGS)

# As a lab PC has it: the wheel, an older Python, nothing of the daemon's; the daemon runs beside it.
test-sdk: $(SDK) $(INSTALLED) wheel
	@$(call pip,$(SDK_VENV)) --no-deps --force-reinstall dist/*.whl
	@LPTD=$(CURDIR)/$(BIN)/lptd $(SDK_VENV)/bin/pytest -q tests/clients

coverage: $(INSTALLED) $(DEV)  ## the tests, and the lines and branches that they leave out
	@$(BIN)/pytest -q --cov --cov-report=term-missing $(PYTEST_ARGS)

wheel: $(RUN)  ## dist/*.whl, made without a network
	@rm -f dist/*.whl
	@$(BIN)/hatchling build -t wheel

# DEB_REVISION=2: the same version once more, for example with a library exchanged (make lock UPGRADE=…).
deb: $(INSTALLED)  ## dist/*.deb, for this release of Debian and this architecture, with all libraries inside
	@mkdir -p dist
	@DEB_REVISION=$(DEB_REVISION) $(BIN)/python deploy/debian/build.py

bench: $(BENCH)  ## measure the daemon beside its rivals: docs/performance.md, .json and plots; about six minutes
	@$(BENCH_VENV)/bin/python -m tests.bench.run

bench-quick: $(BENCH)  ## the same in less than a minute: tables on the terminal, no files
	@$(BENCH_VENV)/bin/python -m tests.bench.run --quick

soak: $(INSTALLED) $(DEV)  ## everything at once, for thirty minutes or SOAK_S=… seconds; a table at the end (docs/reliability.md)
	@$(BIN)/python -m tests.chaos.soak

# Pinned and hashed for every system and every Python from 3.11 (the SDK's: 3.10). Always from the public index,
# whatever the machine is configured to use. Pins that still fit are kept.
lock: COMPILE = $(UV_VENV)/bin/uv pip compile --quiet --no-config --universal --generate-hashes \
    --no-header --no-emit-index-url --no-emit-find-links $(UPGRADE)
lock: DAEMON := pyproject.toml --python-version 3.11 --extra cli --extra cert --extra daemon --group build
lock: $(UV)  ## pyproject.toml → requirements*.lock
	@$(COMPILE) $(DAEMON) -o requirements.lock
	@$(COMPILE) $(DAEMON) --group dev -c requirements.lock -o requirements-dev.lock
	@$(COMPILE) $(DAEMON) --group bench -c requirements.lock -o requirements-bench.lock
	@$(COMPILE) --python-version 3.10 --group sdk -o requirements-sdk.lock
	@$(COMPILE) --python-version 3.11 --group uv -o requirements-uv.lock
	@$(COMPILE) --python-version 3.10 --group oldest-pip -o requirements-oldest-pip.lock

clean:  ## remove all that make made
	@rm -rf .venv .venvs .cache dist .coverage .coverage.* .hypothesis .*_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A changed lock makes the environment anew, so that nothing lingers in it.
# $(call environment,FOLDER,PYTHON,LOCK)
define environment
@echo "$(1): $$($(2) --version), $(3)"
@$(2) -m venv --clear $(1)
@$(call pip,$(1)) $(LOCKED) $(3)
@touch $@
endef

$(RUN): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo '$(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo '$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv' >&2; exit 1; }
	$(call environment,$(VENV),$(PYTHON),requirements.lock)

$(INSTALLED): pyproject.toml lpt_service/__init__.py $(RUN)
	@$(call pip,$(VENV)) --no-deps --no-build-isolation -e .
	@touch $@

# After $(INSTALLED), never beside it: two pips in one environment get into each other's way.
$(DEV): requirements-dev.lock $(RUN) | $(INSTALLED)
	@echo "$(VENV): requirements-dev.lock"
	@$(call pip,$(VENV)) $(LOCKED) requirements-dev.lock
	@touch $@

$(BENCH_RUN): requirements-bench.lock
	$(call environment,$(BENCH_VENV),$(PYTHON),requirements-bench.lock)

$(BENCH): pyproject.toml lpt_service/__init__.py $(BENCH_RUN)
	@$(call pip,$(BENCH_VENV)) --no-deps --no-build-isolation -e .
	@touch $@

$(SDK): requirements-sdk.lock
	$(call environment,$(SDK_VENV),$(SDK_PYTHON),requirements-sdk.lock)

$(UV): requirements-uv.lock
	$(call environment,$(UV_VENV),$(PYTHON),requirements-uv.lock)
