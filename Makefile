# Needs make and Python 3.11 to 3.13 with venv. All else comes into .venv, each file checked against requirements.lock.
BIN := .venv/bin
READY := .venv/.ready
export PYTHON ?= python3
# Tests are held to what they call, not to each type in them.
LOOSE := arg-type assignment attr-defined call-overload dict-item func-returns-value has-type index list-item misc \
	operator override return-value type-var union-attr var-annotated

.DEFAULT_GOAL := help
.PHONY: help demo test check up bench kill hostile lock

help: ## List these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Tell the whole story on this machine, from a company's events to its adapter's answers
	@$(BIN)/rillfold demo $(if $(KEEP),--keep)

test: $(READY) ## Run every test, in three lanes side by side
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=10

check: $(READY) ## Lint, formatting, types, the layers, dead code
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file= --explicit-package-bases --ignore-missing-imports --check-untyped-defs bench tests/kill tests/hostile examples/*.py
	@$(BIN)/mypy --config-file= --explicit-package-bases --ignore-missing-imports --check-untyped-defs $(LOOSE:%=--disable-error-code=%) tests
	@$(BIN)/lint-imports
	@$(BIN)/vulture

up: $(READY) ## Start Kafka and Postgres here, with WORKERS=1 all workers too; Ctrl-C stops them, the data stays
	@$(BIN)/rillfold up $(if $(WORKERS),--workers)

bench: $(READY) ## List the benchmarks; `.venv/bin/rillfold bench NAME` runs one
	@$(BIN)/rillfold bench --help

kill: $(READY) ## Kill brokers, databases and workers for ten seeds, and hold every row against the log: an hour
	@$(BIN)/python -m tests.kill

hostile: $(READY) ## Be one company that wants to stop, read or lose another: corpus, drawn values, 20,000 requests: an hour
	@$(BIN)/python -m tests.hostile

lock: $(READY) ## Choose newer versions within the bounds of pyproject.toml, and write down their hashes
	@.venv/setup/bin/uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --all-extras --group dev \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock
	@$(BIN)/python -m rillfold.embedded.relock

$(READY): requirements.lock pyproject.toml setup/uv.txt setup/environment.sh setup/native.py schemas/codec/native.c schemas/codec/values.h
	@sh setup/environment.sh
	@touch $@
