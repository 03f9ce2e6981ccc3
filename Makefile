# Two commands matter: `make serve` and `make test`. Both set up what they need the first time.
# Needed: Python 3.11 to 3.14 (or uv), make, a C compiler. Works with GNU make 3.81 (macOS) and newer.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help serve test test-fast mac-check coverage clients fuzz check lint format bench faults prove world shots page-vendor dash install install-dev lock clean

# cuda13: MLX on an NVIDIA GPU under Linux (docs/cuda.md), in an environment of its own, since the
# backends of MLX replace each other's files.
BACKEND ?=
SUFFIX := $(if $(BACKEND),-$(BACKEND))
VENV := .venv$(SUFFIX)
LOCK := requirements$(SUFFIX).lock
BIN := $(VENV)/bin
CLIENTS := .venv-clients
NODE_CLIENTS := tests/clients/node
UV ?= uv

# The Python to make the environment with; empty: scripts/find_python.sh looks for one.
PYTHON ?=

# The vision part takes a third of llama.cpp's build and nothing here uses it. The library is built
# for this machine's processor (GGML_NATIVE): for an image or a cache that travels, add
# -DGGML_NATIVE=OFF. Metal is on by itself on a Mac.
CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
export CMAKE_ARGS
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## Show the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

serve: $(VENV)/.installed ## Set up if needed, then start everything; Ctrl-C stops it
	@exec $(BIN)/mgs serve

# Files go to whichever process is free, in the order that tests/conftest.py gives them. Three for two
# cores: many tests wait.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-dev ## Set up if needed, then run all tests
	@exec $(BIN)/python -m pytest $(SPREAD)

test-fast: $(VENV)/.installed-dev ## The tests that need no Redis and no real engine: a minute
	@exec $(BIN)/python -m pytest $(SPREAD) -m "not clients and not real_engine" \
		tests/unit tests/architecture tests/engines

coverage: $(VENV)/.installed-dev ## Which lines unit and integration tests run (needs the package coverage)
	@rm -rf build/coverage && mkdir -p build/coverage
	@status=0; $(BIN)/python -m coverage run -m pytest -q $(SPREAD) tests/unit tests/integration || status=$$?; \
	$(BIN)/python -m coverage combine -q && $(BIN)/python -m coverage report && exit $$status

mac-check: $(VENV)/.installed ## Try this machine, Mac or not: engines, memory, speeds; writes a report
	@exec $(BIN)/mgs check

clients: $(VENV)/.installed-dev $(CLIENTS)/newest/.installed $(CLIENTS)/llama_index/.installed $(NODE_CLIENTS)/node_modules/.installed ## Client libraries of others against a server (needs node and npm)
	@exec $(BIN)/python -m pytest -m "clients or not clients" tests/clients

fuzz: $(VENV)/.installed-dev ## 10 000 hostile requests to a real server, others each time
	@MGS_FUZZ_BODIES=10000 exec $(BIN)/python -m pytest -s tests/fuzz

check: lint ## Linter, formatter, strict types, import contracts
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: $(VENV)/.installed-dev ## Linter and formatter only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Let the linter and the formatter correct what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Our server beside the bare libraries and other servers, in one run
	@exec $(BIN)/python -m bench

faults: $(VENV)/.installed-dev ## The table of faults with all rounds, into docs/faults.md
	@exec $(BIN)/python -m tests.faults

prove: $(VENV)/.installed-dev ## Counts too long for the tests, into docs/proofs.md; some: ONLY="upgrade"
	@exec $(BIN)/python -m tests.proofs $(ONLY)

world: $(VENV)/.installed-dev ## Chat templates and vocabularies of the world: speed, and real ones if pip has llama.cpp's sources
	@exec $(BIN)/python -m tests.world

shots: $(VENV)/.installed-dev ## Pictures of all pages of the browser page, into build/shots (needs Chromium)
	@MGS_SHOTS=$(or $(SHOTS),1) exec $(BIN)/python -m pytest -q -n 0 tests/page/test_shots.py

page-vendor: ## Make api/page/vendor anew from scripts/page_vendor (needs node and npm)
	@cd scripts/page_vendor && npm ci --no-audit --no-fund --silent && node build.mjs

dash: $(VENV)/.installed-dev ## Watch the queues in a browser (the server must run)
	@exec $(BIN)/mgs dash

install: $(VENV)/.installed ## Only set up what serving needs

install-dev: $(VENV)/.installed-dev ## Only set up what testing needs

lock: ## Pin the dependencies anew (needs uv)
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header pyproject.toml -o requirements.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header pyproject.toml --group dev --extra dash -o requirements-dev.lock
	cp requirements.lock requirements-cuda13.lock # the same versions of all else
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header pyproject.toml --override requirements-cuda13.in \
		-o requirements-cuda13.lock
	for name in newest llama_index; do \
		$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-annotate --no-header tests/clients/requirements/$$name.in \
			-o tests/clients/requirements/$$name.lock || exit 1; \
	done

clean: ## Remove the environment, the caches and the embedded Redis' data
	rm -rf $(VENV) $(CLIENTS) $(NODE_CLIENTS)/node_modules .state build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$$(PYTHON='$(PYTHON)' /bin/sh scripts/find_python.sh) && \
	{ "$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }

# For a Python that the lock has no packages for, pip installs none of them, without a word.
CHECK_INSTALLED = $(BIN)/python -c 'import rq' 2>/dev/null || { \
	echo "Nothing was installed: $(LOCK) has no packages for $(BIN)/python. Try again after: rm -rf $(VENV)" >&2; \
	exit 1; }

# Locks are complete, so nothing is resolved: pip's resolver takes minutes on this tree.
$(VENV)/.installed: $(LOCK) pyproject.toml | $(BIN)/python
	@/bin/sh scripts/check_compiler.sh
	@echo "Installing what serving needs. The first time, llama.cpp is compiled: some minutes."
	@$(BIN)/python -m pip install -q --no-deps --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install -q --no-deps -e .
	@$(CHECK_INSTALLED)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@if [ -n "$(BACKEND)" ]; then echo "Tests have no packages for BACKEND=$(BACKEND): run them without it." >&2; exit 1; fi
	@/bin/sh scripts/check_compiler.sh
	@echo "Installing what testing needs. The first time, llama.cpp is compiled: some minutes."
	@$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -q --no-deps -e .
	@$(CHECK_INSTALLED)
	@touch $@ $(VENV)/.installed

# Their trees stay out of the product's environment.
$(CLIENTS)/%/.installed: tests/clients/requirements/%.lock | $(BIN)/python
	$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install -q --no-deps --require-hashes -r $<
	@touch $@

$(NODE_CLIENTS)/node_modules/.installed: $(NODE_CLIENTS)/package.json
	@cd $(NODE_CLIENTS) && npm install --no-package-lock --no-audit --no-fund --silent
	@touch $@
