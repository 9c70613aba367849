# `make demo` and `make test` work on a fresh machine with python3 and make.
#   demo          judge the embedded release
#   test          what proves the package, in minutes
#   quick         the part of it that imports no torch and starts no process, in seconds
#   test-project  what surrounds the package: workflows, wheel, examples, report in a browser, benchmarks
#   fix lint docs clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
REPORT := gate-report
WORKFLOWS := .github/workflows/*.yml
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema

# Several files at a time, one thread each: most tests wait for imports or for processes of their own.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

.PHONY: demo test quick test-project fix lint docs wheel-test clean

demo: $(INSTALLED)
	$(BIN)/pytest --sae-release=demo --sae-out=$(REPORT)

test: $(INSTALLED)
	$(PYTEST)

quick: $(INSTALLED)
	$(PYTEST) -m 'not slow'

test-project: $(INSTALLED)
	$(PYTEST) tests/project

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

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
