# `make run` and `make test` are all that a fresh clone needs. They make the environment in .venv, once, and
# call its tools by path, so an environment that happens to be activated plays no part.

PYTHON ?= python3
VENV := .venv
IN_VENV := $(VENV)/bin/python

# Both would let modules from outside into the environment.
unexport PYTHONHOME PYTHONPATH

.PHONY: help run test chaos fuzz check format bench bench-peers clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  PYTHON=python3.12 chooses the interpreter of a new environment, ARGS='-k name' goes to pytest,"
	@echo "  to chaos ARGS='--wire grpc', to fuzz ARGS='--target codec --seed 1', to bench ARGS='latency start --repeats 1'"

run: $(VENV)/.run ## run the sample tasks on two workers of this machine
	$(IN_VENV) dispatcher.py --workers 2 --cores 2

# The wires' tests wait more than they compute; the others want the cores for themselves.
WAITING := tests/chaos tests/contract

test: $(VENV)/.dev ## run all tests
ifdef ARGS
	$(IN_VENV) -m pytest $(ARGS)
else
	$(IN_VENV) -m pytest -n 3 $(WAITING)
	$(IN_VENV) -m pytest $(WAITING:%=--ignore=%)
endif

chaos: $(VENV)/.dev ## kill and cut whatever there is: SEEDS=20 runs, from FIRST=0
	$(IN_VENV) -m tests.chaos --seeds $(or $(SEEDS),20) --first $(or $(FIRST),0) $(ARGS)

fuzz: $(VENV)/.dev ## feed whatever reads with inputs that are wrong: SECONDS=60
	$(IN_VENV) -m tests.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

check: $(VENV)/.dev ## check format, lint and types
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m mypy

format: $(VENV)/.dev ## format the code, and mend what lint can mend by itself
	$(IN_VENV) -m ruff format .
	$(IN_VENV) -m ruff check --fix .

bench: $(VENV)/.bench ## measure what we claim
	$(IN_VENV) -m benchmarks $(ARGS)

bench-peers: $(VENV)/.bench ## install others beside us, and measure all on the same work
	$(IN_VENV) -m benchmarks.peers.environment
	$(IN_VENV) -m benchmarks peers $(ARGS)

clean: ## remove the environments and all caches
	rm -rf $(VENV) benchmarks/.venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The four stamps below say how far the environment has come; pip is asked again only when a list changes.

$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "make: there is no $(PYTHON); name a Python of 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements.txt
	$(IN_VENV) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(IN_VENV) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.run benchmarks/requirements.txt
	$(IN_VENV) -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@
