# `make demo` and `make test` are all a newcomer needs; both work on a fresh clone.
VENV ?= .venv
PYTHON ?= python3
# One release that the tests have seen; a CPU build serves as well.
TORCH ?= torch==2.13.0
KODAK ?= kodak
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install

.PHONY: demo test test-settings lint bench picture docs fuzz clean

demo: $(VENV)/.installed
	@$(VENV)/bin/python benchmarks/demo.py

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -q

# As other processors compute: takes several times as long as the suite itself.
test-settings: $(VENV)/.installed
	PYTHON=$(VENV)/bin/python bash tests/settings.sh

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Anew, in runs/, and only then in the old results' place; one that was cut short goes on there.
bench: $(VENV)/.installed
	@test -d "$(KODAK)" || { echo "no folder $(KODAK): make bench KODAK=folder of images" >&2; exit 1; }
	mkdir -p runs
	$(VENV)/bin/licodec bench $(KODAK) -o runs/kodak.json --plot runs/kodak.svg
	mv runs/kodak.json runs/kodak.svg benchmarks/
	$(VENV)/bin/python benchmarks/tables.py

# README's picture; to be made anew with new weights.
picture: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/picture.py

# The guide, in build/site.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict

fuzz: $(VENV)/.installed
	@$(PIP) atheris
	$(VENV)/bin/python tests/fuzz.py --minutes 10

# torch first and by itself: resolved together with the rest, pip may take a larger build.
$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV), once; this takes some minutes"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "$(TORCH)"
	@$(PIP) --editable ".[bench,dev,docs,ray,train]"
	@touch $@

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
