# One file of tasks: people and CI run the same commands.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Other versions of the frameworks, each in a directory that is laid over the environment.
OVERLAYS := $(VENV)/overlays/.ready
# A backend for traces, which is large: in an environment of its own, where the tests that take minutes find it.
PHOENIX := $(VENV)/phoenix/.ready
# Fuzzers and mutants, too: nothing else needs them.
FUZZ := $(VENV)/fuzz/.ready
# What requirements/*.txt names, in those bytes and no others.
PINNED := -m pip install --quiet --disable-pip-version-check --require-hashes -r
# CI also demands that nearly every branch is tested.
COVER  := $(if $(CI),--cov --cov-report=term-missing:skip-covered --cov-fail-under=95)

.DEFAULT_GOAL := help
.PHONY: help setup demo run load test soak fuzz mutants check format bench bench-peers count quality strategies docs release-check screenshots lock clean

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(READY) $(OVERLAYS) ## create .venv with everything that the tasks need

$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { echo "The tools need Python 3.11.5 or later; try make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (a minute or two, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PINNED) requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(OVERLAYS): $(READY) tests/frameworks/versions.toml tests/frameworks/overlays.py
	@echo "setting up the frameworks of the matrix (half a minute, once)"
	@$(BIN)/python tests/frameworks/overlays.py $(@D)
	@touch $@

$(PHOENIX): $(READY)
	@echo "setting up a backend for traces (850 MB, once)"
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check arize-phoenix
	@touch $@

$(FUZZ): $(READY) requirements/fuzz.txt
	@echo "setting up the fuzzers (a minute, once)"
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python $(PINNED) requirements/fuzz.txt
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## start the example app offline, send it real traffic, show the result
	@$(BIN)/python -m example_app.demo

run: $(READY) ## serve the example app, and its page, on http://localhost:8000
	@DESK_CHUNK_DELAY=0.02 TIERLINE_SHADOW=0.2 $(BIN)/python -m uvicorn --factory example_app.main:build --port 8000

load: $(READY) ## many users at once on the example app with two workers, and is the ledger the bill
	@$(BIN)/python -m example_app.load

test: $(READY) $(OVERLAYS) ## run the tests
	@$(BIN)/python -m pytest -n auto $(COVER)

soak: $(READY) $(PHOENIX) ## run the tests that take minutes
	@$(BIN)/python -m pytest -m soak --timeout 3600 -o log_cli=true -o log_cli_level=INFO

fuzz: $(FUZZ) ## fuzz what reads bytes of others (SECONDS=120 for each, TARGETS="body usage": those alone)
	@$(<D)/bin/python -m tests.fuzz.fuzz --seconds $(or $(SECONDS),120) $(TARGETS)

mutants: $(FUZZ) ## change the code of windows, budgets and the ledger in memory, and see which tests notice (an hour)
	@PATH=$(abspath $(<D))/bin:$$PATH $(<D)/bin/python -m mutmut run
	@$(<D)/bin/python -m mutmut results

check: $(READY) ## format, lint, types, import layers, and the pages' JavaScript
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m scripts.javascript

format: $(READY) ## format and mend what can be mended
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: $(READY) ## CPU time of a call beside the plain SDK; ledgers beside their stores; the concurrent lane
	@$(BIN)/python -m benchmarks.bench
	@$(BIN)/python -m benchmarks.ledgers
	@$(BIN)/python -m benchmarks.lane

bench-peers: $(READY) ## CPU time, start-up and size beside the peers: writes docs/performance.md (QUICK=1: in minutes)
	@$(BIN)/python $(PINNED) requirements/release.txt
	@$(BIN)/python -m benchmarks.peers --environments "$(or $(PEERS),$(VENV)/peers)" $(if $(QUICK),--quick)

count: $(READY) ## instructions that Tierline adds to a call, under valgrind; fails where they have grown by 2%
	@$(BIN)/python -m benchmarks.count

quality: $(READY) ## how well tiers are chosen, on DATA=DIR: writes docs/quality.md (PARTS="text pace": those anew)
	@$(BIN)/python $(PINNED) requirements/quality.txt
	@$(BIN)/python -m benchmarks.quality --data "$(or $(DATA),$(error write make quality DATA=DIR, the directory of the data))" $(if $(PARTS),--parts $(PARTS))

strategies: $(READY) ## what escalation, speculation and the like cost and gain, on DATA=DIR: writes docs/strategies.md
	@$(BIN)/python $(PINNED) requirements/quality.txt
	@$(BIN)/python -m benchmarks.quality.strategies --data "$(or $(DATA),$(error write make strategies DATA=DIR, the directory of the data))"

docs: $(READY) ## the documentation as a site, in dist/site; fails where a link leads nowhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

release-check: $(READY) ## build what is released, twice, and try it in clean environments (minutes)
	@$(BIN)/python $(PINNED) requirements/release.txt
	@$(BIN)/python -m scripts.try_release

screenshots: $(READY) ## take the pictures of the page for the documentation
	@$(BIN)/python -m scripts.screenshots

lock: $(READY) ## write requirements/*.txt anew: what pyproject.toml asks for, pinned and hashed (UPGRADE=-U: at its newest)
	@$(BIN)/python $(PINNED) requirements/release.txt
	@$(BIN)/python -m scripts.lock $(UPGRADE)

clean: ## remove what the tasks made
	rm -rf $(VENV) .fuzz mutants .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage dist
