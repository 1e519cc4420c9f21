# The only place where commands are spelled. Every target sets up what it needs in .venv.

PYTHON ?= python3
BIN    := .venv/bin
PIP     = $(BIN)/python -m pip install -qq --disable-pip-version-check
ROUNDS ?= 0
N      ?= 1000
OUT    ?= screenshots
PROFILE ?= cpu
CACHE  ?= /tmp/agenthub-fills
STAND_IN ?=
QUEUED ?= 10000
SEEDS  ?= 1

.PHONY: help run demo test check fmt screenshots stress exploits clean
.PHONY: bench bench-claims bench-noise bench-pages bench-pushes bench-similar bench-swarm bench-train

help:
	@echo "make demo    hub, agents and a worker on this machine; ROUNDS=3 ends by itself"
	@echo "make run     serve a hub on http://127.0.0.1:8080 with its data in ./data"
	@echo "make test    all tests"
	@echo "make check   format, lint, types, imports"
	@echo "make fmt     format the code"
	@echo "make stress  the long tests"
	@echo "make bench   every call of a hub of N commits, against a bare route; N=100000 takes longer"
	@echo "make exploits  every known cheat and odd honest model, trained and scored: a table"
	@echo "make bench-pushes  what the N-th push costs; N=10000 takes minutes"
	@echo "make bench-noise  how often luck becomes a record, and a real gain"
	@echo "make bench-similar  what the index of similar experiments costs"
	@echo "make bench-train  the template beside autoresearch's settings; PROFILE=gpu takes 35 minutes"
	@echo "make bench-claims  what a claim takes with QUEUED=10000 commits waiting"
	@echo "make bench-swarm  a simulated swarm whose truth is known; SEEDS=5 plays five"
	@echo "make screenshots  a picture of every page, light, dark and as on a phone, in OUT=screenshots"
	@echo "make bench-pages  the pages with N commits, in Chromium; N=10000 takes minutes"

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
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

stress: .venv/all.stamp
	$(BIN)/python -m pytest -m stress

bench: .venv/all.stamp
	$(BIN)/python -m bench.hub --commits $(N) --cache $(CACHE)

exploits: .venv/all.stamp
	$(BIN)/python -m bench.exploits

bench-pushes: .venv/all.stamp
	$(BIN)/python -m bench.pushes --pushes $(N)

bench-noise: .venv/all.stamp
	$(BIN)/python -m bench.noise

bench-similar: .venv/all.stamp
	$(BIN)/python -m bench.similar --commits $(N)

bench-train: .venv/all.stamp
	$(BIN)/python -m bench.train --profile $(PROFILE) $(if $(STAND_IN),--stand-in)

bench-claims: .venv/all.stamp
	$(BIN)/python -m bench.claims --queued $(QUEUED)

bench-swarm: .venv/all.stamp
	$(BIN)/python -m bench.swarm --seeds $(SEEDS)

screenshots: .venv/all.stamp
	$(BIN)/python -m bench.screenshots --out $(OUT)

bench-pages: .venv/all.stamp
	$(BIN)/python -m bench.pages --commits $(N)

check: .venv/all.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/all.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo-data screenshots
