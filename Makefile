# `make demo` and `make test` work on a fresh machine with python3 and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
REPORT := gate-report

.PHONY: demo test lint clean

demo: $(INSTALLED)
	mkdir -p $(REPORT)
	$(BIN)/pytest --sae-release=demo \
	  --junitxml=$(REPORT)/junit.xml --benchmark-json=$(REPORT)/benchmark.json --sae-record=$(REPORT)/record.json --sae-report=$(REPORT)/report

test: $(INSTALLED)
	$(BIN)/pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# constraints.txt holds the versions that were tested together; pip reads --group from 25.1 on.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	touch $@

clean:
	rm -rf .venv $(REPORT) build dist
