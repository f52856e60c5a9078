# The commands of this project. Each does its own set-up: a fresh machine needs Python 3.11+, make and git.
.DEFAULT_GOAL := help
PY := .venv/bin/python
READY := .venv/.ready
WORKERS ?= 3

# Where Python may not keep bytecode, every process compiles everything anew, and a worker its workflows for each run.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help up down status demo demo-chain test soak soak-chain bench check lock

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(READY) ## start everything; prints where the API, its docs and the Temporal UI are
	@$(PY) -m tools up --detach

down: $(READY) ## stop everything; the data stays in .holdfast
	@$(PY) -m tools down

status: $(READY) ## show what is running
	@$(PY) -m tools status || true

demo: $(READY) ## play a whole escrow against the running stack
	@$(PY) -m tools demo

demo-chain: $(READY) ## play the main job on a real chain, from contract to alert, through a reorganisation (needs npm)
	@test -d tests/npm/node_modules/@foundry-rs || npm ci --prefix tests/npm --no-audit --no-fund --loglevel error
	@$(PY) -m tools demo-chain

test: check ## run every check and every test (WORKERS=3 processes; ARGS=path::test runs that, in one)
	$(PY) -m pytest $(or $(ARGS),-n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0)

soak: $(READY) ## kill every process at random under load, and judge the outcome (SEED= KILLS=60 MINUTES=10)
	$(PY) -m tests.soak $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

soak-chain: $(READY) ## follow real chains through faults, reorganisations and killed workers (SEED= ROUNDS=10)
	HOLDFAST_PROOF_SEED=$(SEED) HOLDFAST_PROOF_ROUNDS=$(or $(ROUNDS),10) $(PY) -m pytest -s -p no:xdist tests/chain/test_proof_deaths.py

bench: $(READY) ## measure everything beside its baseline, into docs/benchmarks.md (ARGS=--help)
	$(PY) -m tests.bench $(ARGS)

check: $(READY) ## run the static checks alone
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy .
	.venv/bin/lint-imports

lock: $(READY) ## lock the dependencies again (ARGS=--upgrade takes newer versions)
	$(LOCK) -o requirements/runtime.txt pyproject.toml
	$(LOCK) --group local --group dev -o requirements/dev.txt pyproject.toml
	$(LOCK) -o requirements/uv.txt requirements/uv.in

LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS)

$(READY): requirements/dev.txt requirements/uv.txt tools/setup.sh
	@tools/setup.sh
