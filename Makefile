# `make demo` and `make test` work on a fresh machine with python3 and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
REPORT := gate-report
WORKFLOWS := .github/workflows/*.yml
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema

.PHONY: demo test lint docs wheel-test clean

demo: $(INSTALLED)
	mkdir -p $(REPORT)
	$(BIN)/pytest --sae-release=demo \
	  --junitxml=$(REPORT)/junit.xml --benchmark-json=$(REPORT)/benchmark.json --sae-record=$(REPORT)/record.json --sae-report=$(REPORT)/report

# Several files at a time: most tests wait for imports or for processes of their own, on one thread each.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --no-progress --quiet --persona=pedantic .github action.yml
	$(SCHEMA) vendor.github-workflows $(WORKFLOWS)
	$(SCHEMA) vendor.github-actions action.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff

# The site of docs/, in site/; a dead link is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Wheel and sdist in dist/, and the tests of what pip makes of them.
wheel-test: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	SAE_CHECKS_DIST=dist $(BIN)/pytest tests/project/test_package.py

# constraints.txt holds the versions that were tested together; pip reads --group from 25.1 on.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --group docs --editable .
	touch $@

clean:
	rm -rf .venv $(REPORT) build dist site
