# make serve, make test: each makes the environment it needs. `make help` lists the rest.

PYTHON  ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3.11)
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# The documentation has an environment of its own, which is small and needs nothing of the other.
DOCS    := .venv-docs
HOST    ?= 127.0.0.1
PORT    ?= 8000
STUDIES ?=
# Pairs for the app's configuration, such as CONF="model vit_b plane axial".
CONF    ?=
# Arguments for pytest, such as PYTEST="tests/unit -k imaging".
PYTEST  ?=
# Processes that share the tests. Each takes about 2 GB, and starts servers of its own.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install serve test test-all lint format docs page clean

help:
	@echo 'make serve                     start the server on http://$(HOST):$(PORT) with demo studies'
	@echo 'make serve STUDIES=<folder>    … with your images (also PORT=, HOST=, CONF="plane axial")'
	@echo 'make serve STUDIES=<address>   … with the studies of a DICOMweb server'
	@echo 'make test                      run the tests (PYTEST="tests/unit" for some of them)'
	@echo 'make test-all                  run the slow ones too'
	@echo 'make lint / make format        check types and style / correct the style of the code'
	@echo 'make docs                      build the documentation in artifacts/docs'
	@echo 'make page                      build the browser page, which is committed built; needs Node 20'
	@echo 'make install                   only make the environment in $(VENV)'
	@echo 'make clean                     remove the environment, caches and test artefacts'

# Written last, so that an interrupted installation is done again.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo 'Causal-SAM needs Python 3.11, and $(PYTHON) is none. Install it (Debian 12, Ubuntu: python3.11 and' \
	       'python3.11-venv), or say where it is: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo '$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: python3.11-venv).'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

install: $(STAMP)

serve: $(STAMP)
	@exec $(BIN)/causal-sam serve --host $(HOST) --port $(PORT) $(if $(STUDIES),--studies "$(STUDIES)") \
	  $$(set -- $(CONF); while [ $$# -gt 1 ]; do printf -- '--conf %s=%s ' "$$1" "$$2"; shift 2; done)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not slow' $(PYTEST)

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 30 $(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(DOCS)/.installed: requirements-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-docs.txt
	@touch $@

# Strict: a link that leads nowhere is an error, and so is a page that loads something from the network.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@! grep -rlE '<(script|link|img)[^>]+(src|href)="?(https?:)?//' artifacts/docs --include='*.html' || { \
	  echo 'These pages load something from the network.'; exit 1; }

page: $(STAMP)
	cd apps/causal_sam && ../../$(BIN)/python -c \
	  'import json; from serving.page.routes import api_description; print(json.dumps(api_description(), indent=1))' \
	  > page/openapi.json
	cd apps/causal_sam/page && npm ci && npm run lint && npm test && npm run build

# Not the demo studies: labels may have been saved there.
clean:
	rm -rf $(VENV) $(DOCS) artifacts build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
