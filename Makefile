# One verb each. Needs only Python 3.11+ (with venv), make and git.
# The first use of a target builds its environment from a lock with hashes; after that it starts at once.

PYTHON ?= python3
PORT ?= 8000
ARGS ?=

BIN := .venv/bin
INSTALL := -m pip install --quiet --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes --no-deps
HEAVY := torch or clients or browser or database or slow or soak
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal

CLIENTS := $(patsubst tests/clients/%/requirements.lock,%,$(wildcard tests/clients/*/requirements.lock))
COMPILE := .venvs/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)
SERVER := redis postgres otel oidc tokenizers # extras of the image

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: .venv/.base ## Start the demo (no Modal account, no model): make run [PORT=8000]
	@exec $(BIN)/modal-gateway demo --port $(PORT)

.PHONY: test
test: .venv/.dev ## Run the fast tests: make test [ARGS="-k stops -x"]
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not ($(HEAVY))" $(ARGS)

.PHONY: test-all
test-all: test-torch test-clients test-slow test-browser lint types ## Run all that `make test` leaves out, then lint and types

.PHONY: test-torch
test-torch: .venvs/torch/.installed ## Run the tests that need torch and transformers
	.venvs/torch/bin/python -m pytest -m torch $(ARGS)

.PHONY: test-clients
test-clients: .venv/.dev $(CLIENTS:%=.venvs/%/.installed) .venvs/node/.installed ## Run the client programs that live in environments of their own
	$(BIN)/python -m pytest -m clients $(ARGS)

.PHONY: test-slow
test-slow: .venv/.stack ## Run the slow tests and those that need a database
	$(BIN)/python -m pytest -m "(database or slow) and not (torch or clients or browser or soak)" $(ARGS)

.PHONY: test-browser
test-browser: .venv/.stack ## Run the tests of the console in a browser
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m browser $(ARGS)

.PHONY: soak
soak: .venv/.dev ## Run what takes many minutes and some GB of disk; part of no other target
	$(BIN)/python -m pytest -m soak $(ARGS)

.PHONY: lint
lint: .venv/.dev ## Check style, names and complexity
	$(BIN)/ruff check .

.PHONY: types
types: .venv/.dev ## Check types, strictly
	$(BIN)/mypy

.PHONY: check
check: .venv/.dev ## Run lint, types and tests; fail if that changed a file of the tree
	@before="$$(git status --porcelain)" && $(MAKE) lint types test && \
	if [ "$$before" != "$$(git status --porcelain)" ]; then git status --short; echo "the checks changed the tree"; exit 1; fi

.PHONY: fix
fix: .venv/.dev ## Repair what lint can repair
	$(BIN)/ruff check --fix .

.PHONY: golden
golden: .venv/.dev ## Rewrite the golden files from what the code does now; review the diff
	$(BIN)/python -m pytest -m "not ($(HEAVY))" --golden $(ARGS)

.PHONY: bench
bench: .venv/.dev ## Measure against a bare baseline in the same run
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: console
console: ## Refresh the console's JavaScript libraries from their lock (needs npm)
	mkdir -p .venvs/console && cp gateway/console/vendor/* .venvs/console
	cd .venvs/console && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	node .venvs/console/refresh.mjs gateway/console/static/vendor

.PHONY: screenshots
screenshots: .venv/.stack ## Take the pictures of the console in docs/screenshots (needs Chromium, seven minutes)
	$(BIN)/python -m tests.console.browser.screenshots

.PHONY: lock
lock: .venvs/uv/.installed ## Rewrite the locks from pyproject.toml and tests/clients/*/requirements.in; UPGRADE=1 takes newer versions
	$(COMPILE) --group build -o requirements-build.lock
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --extra all --group build --group test --group lint \
		-c requirements.lock -c requirements-build.lock -o requirements-dev.lock
	$(COMPILE) --group stack -c requirements-dev.lock -o requirements-stack.lock
	$(COMPILE) pyproject.toml $(SERVER:%=--extra %) -c requirements-dev.lock -o requirements-server.lock
	$(COMPILE) pyproject.toml $(SERVER:%=--extra %) --extra modal -c requirements-dev.lock -o requirements-modal.lock
	$(COMPILE) modal_backend/requirements.in -c requirements.lock -o modal_backend/requirements.lock
	set -e; for wanted in tests/clients/*/requirements.in; do \
		folder=$${wanted%requirements.in}; \
		if [ -f $${folder}overrides.txt ]; then overrides="--override $${folder}overrides.txt"; else overrides=; fi; \
		$(COMPILE) $$wanted $$overrides -o $${folder}requirements.lock; \
	done
	cd tests/clients/node && npm $(if $(UPGRADE),update,install) --package-lock-only --ignore-scripts
	cd gateway/console/vendor && npm $(if $(UPGRADE),update,install) --package-lock-only --ignore-scripts \
		--omit-lockfile-registry-resolved

.PHONY: clean
clean: ## Remove environments, caches and builds
	rm -rf .venv .venvs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments; each leaves a stamp, so a second run starts at once ---

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.base: requirements.lock requirements-build.lock pyproject.toml | .venv/bin/python
	$(BIN)/python $(LOCKED) -r requirements.lock -r requirements-build.lock
	$(BIN)/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.base
	$(BIN)/python $(LOCKED) -r requirements-dev.lock
	@touch $@

.venv/.stack: requirements-stack.lock .venv/.dev
	$(BIN)/python $(LOCKED) -r requirements-stack.lock
	@touch $@

.venvs/torch/.installed: requirements-torch.txt requirements-dev.lock pyproject.toml | .venv/bin/python
	$(BIN)/python -m venv .venvs/torch
	.venvs/torch/bin/python $(LOCKED) -r requirements-dev.lock
	.venvs/torch/bin/python $(INSTALL) -r requirements-torch.txt
	.venvs/torch/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venvs/uv/.installed: | .venv/bin/python
	$(BIN)/python -m venv .venvs/uv
	.venvs/uv/bin/python $(INSTALL) 'uv>=0.8,<1'
	@touch $@

# Without npm nothing is installed, and the tests that would need it are skipped.
.venvs/node/.installed: $(addprefix tests/clients/node/,package.json package-lock.json .npmrc)
	@if command -v npm >/dev/null; then \
		mkdir -p .venvs/node && cp $^ .venvs/node && cd .venvs/node && \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch .installed; \
	else echo "no npm: JavaScript clients are not tested"; fi

.venvs/%/.installed: tests/clients/%/requirements.lock | .venv/bin/python
	$(BIN)/python -m venv .venvs/$*
	.venvs/$*/bin/python $(LOCKED) -r $<
	@touch $@
