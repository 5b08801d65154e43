PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
SYNC := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) sync --quiet --frozen --active --inexact

.PHONY: install servers demo check test verify verify-deep bench clean

# Only the demo's own parts: make demo needs none of the development tools.
$(VENV)/.demo: uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/pip install --quiet 'uv>=0.6'
	$(SYNC) --extra demo --no-default-groups
	touch $@

$(VENV)/.ready: $(VENV)/.demo
	$(SYNC) --extra demo --extra postgres --group dev
	touch $@

$(VENV)/.bench: $(VENV)/.ready
	$(SYNC) --extra demo --extra postgres --group dev --group bench
	touch $@

install: $(VENV)/.ready

# PostgreSQL and PgBouncer, where they are missing: tests start servers of their own.
servers:
	@sh tests/servers/install.sh

demo: $(VENV)/.demo
	$(BIN)/python -m examples.order_to_cash.demo $(if $(ORDERS),--orders $(ORDERS)) $(DEMO)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

test: install servers
	$(BIN)/pytest --doctest-modules src
	$(BIN)/pytest tests

verify: install
	$(BIN)/python -m tests.reliability

verify-deep: install
	$(BIN)/python -m tests.reliability --deep

# Each command ends with 1 where a bar is missed; the others run all the same.
bench: $(VENV)/.bench
	-$(BIN)/python -m bench
	-$(BIN)/python -m bench gather
	-$(BIN)/python -m bench kill
	-$(BIN)/python -m bench imports
	-$(BIN)/python -m bench sleepers

clean:
	rm -rf $(VENV) var dist build
