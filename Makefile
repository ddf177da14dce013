# Two commands are all a newcomer needs; each is sufficient alone.
#   make demo    create a virtual environment, install, run the post
#   make test    the same, then the whole test suite
.PHONY: demo test test-matrix check format docs clean help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(wildcard src/kernels/*)

help:
	@echo "make demo    install into $(VENV) and run the post, section by section"
	@echo "make test    install into $(VENV) and run the whole test suite"
	@echo "make docs    install into $(VENV) and build the documentation in docs/_build/html"
	@echo "make test-matrix  the tests on every declared Python, with lowest and newest dependencies"
	@echo "make check   what CI checks beside the tests: lint, format, types, the floors"

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/pyvenv.cfg $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plots]'
	@touch $@

$(VENV)/.test: $(VENV)/pyvenv.cfg $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plots,arrow,test,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/pyvenv.cfg $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plots,docs]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/mixedeffects demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

test-matrix: $(VENV)/.test
	$(BIN)/python tools/test_matrix.py

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .matrix build dist docs/_build docs/generated
