PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv

.PHONY: install check test demo bench verify clean

$(VENV)/.ready: uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/pip install --quiet 'uv>=0.6'
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) sync --quiet --frozen --active --inexact --extra demo --group dev
	touch $@

install: $(VENV)/.ready

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

test: install
	$(BIN)/pytest tests

clean:
	rm -rf $(VENV) var dist build
