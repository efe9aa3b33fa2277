# `make check` before a commit; `make test` runs everything, with Synapse, PostgreSQL and a browser.
PYTHON = .venv/bin/python
BIN = $(dir $(PYTHON))

.PHONY: check style test up format

check: style
	$(PYTHON) -m pytest tests/unit tests/architecture

style:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(BIN)lint-imports --no-cache

test:
	scripts/test

up:
	scripts/up

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
