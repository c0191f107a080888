# Everything one does with a checkout. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
KILLS  ?= 500
EPISODES ?= 100000
# Tests wait for servers, browsers and processes more than they compute: a worker more than cores.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))

.DEFAULT_GOAL := help
.PHONY: help demo test check format lint types bench kill episodes pictures lock wheel clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.run  ## see it work: a simulated exchange, 50 accounts, 30 seconds; needs no key
	@$(BIN)/poller demo

test: $(VENV)/.dev  ## the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: lint types test  ## what CI runs: lint, format, strict types, tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev  ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench  ## the measurements that docs quote
	$(BIN)/python -m bench

kill: $(VENV)/.dev  ## kill -9 a running daemon KILLS times and hold its history against the books
	POLLER_KILLS=$(KILLS) $(BIN)/python -m pytest tests/end_to_end/test_kill.py -k campaign -s --timeout 0

episodes: $(VENV)/.dev  ## EPISODES short lives of window and budget, held against slow references
	POLLER_EPISODES=$(EPISODES) $(BIN)/python -m pytest tests/simulation/test_episodes.py --timeout 0

pictures: $(VENV)/.dev  ## take the pictures of the fleet page anew (needs Chromium)
	POLLER_TAKE_PICTURES=1 $(BIN)/python -m pytest tests/page/test_pictures.py

wheel: $(VENV)/.dev  ## build the wheel into dist/
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

lock:  ## resolve the dependencies anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --group build pyproject.toml -o requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --group dev --all-extras --constraint requirements/run.txt pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --group build --all-extras --constraint requirements/run.txt --constraint requirements/dev.txt \
	    pyproject.toml -o requirements/image.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --group bench --constraint requirements/run.txt --constraint requirements/dev.txt \
	    pyproject.toml -o requirements/bench.txt

clean:  ## remove what the targets made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache

# What running needs, and what developing needs on top. The stamp is newer than the lock it came from.
$(VENV)/.run: requirements/run.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("poller needs Python 3.11 or newer; run: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@touch $@
