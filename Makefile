# The only place where commands are spelled. Every target sets up what it needs in .venv.

PYTHON ?= python3
BIN    := .venv/bin
PIP     = $(BIN)/python -m pip install -qq --disable-pip-version-check
ROUNDS ?= 0
N      ?= 1000

.PHONY: help run demo test check fmt stress bench-pushes clean

help:
	@echo "make demo    hub, agents and a worker on this machine; ROUNDS=3 ends by itself"
	@echo "make run     serve a hub on http://127.0.0.1:8080 with its data in ./data"
	@echo "make test    all tests"
	@echo "make check   format, lint, types, imports"
	@echo "make fmt     format the code"
	@echo "make stress  the long tests"
	@echo "make bench-pushes  what the N-th push costs; N=10000 takes minutes"

.venv/bin/python:
	$(PYTHON) -m venv .venv

# One stamp per set of extras: reinstalled only when the project file or the pins change.
.venv/hub.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing the hub and the CLI ..."
	@$(PIP) -c constraints.txt -e '.[server]'
	@touch $@

.venv/all.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing everything, PyTorch included; the first time takes minutes ..."
	@$(PIP) -c constraints.txt -e '.[server,worker,train,dev]'
	@touch $@ .venv/hub.stamp

run: .venv/hub.stamp
	$(BIN)/agenthub serve

demo: .venv/all.stamp
	@$(BIN)/python -m demo --rounds $(ROUNDS)

test: .venv/all.stamp
	$(BIN)/python -m pytest

stress: .venv/all.stamp
	$(BIN)/python -m pytest -m stress

bench-pushes: .venv/all.stamp
	$(BIN)/python -m bench.pushes --pushes $(N)

check: .venv/all.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/all.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo-data
