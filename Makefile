# Two commands do everything: `make demo` and `make test`. Both make the environment first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# One environment, laid out in two steps: what the demo needs, and what the tests need besides.
SMALL := $(VENV)/.ready-demo
READY := $(VENV)/.ready
INSTALL := $(BIN)/pip install --quiet --constraint constraints-cpu.txt --editable
DEMO := runs/demo

# What reads and writes other libraries' formats, trains, and speaks their interfaces.
OLDEST := .venv-oldest
OLDEST_TESTS := $(patsubst %,tests/test_%.py,bulk_job bulk_reader compressors doors encoders folder \
	reading report store training travelling)

.PHONY: demo test soak lint types notebooks real-data oldest audit clean

$(SMALL): pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[train,embedded]'
	touch $(SMALL)

$(READY): $(SMALL)
	$(INSTALL) '.[train,embedded,media,multilingual,bulk,ray,clients,dev]'
	touch $(READY)

demo: $(SMALL)  ## Train on docstrings with two real encoders, evaluate, print the table
	$(BIN)/python -m fusion.train --encoders minilm,wordllama --weights auto --texts pydocs \
		--max-texts 3000 --output $(DEMO) --overwrite
	$(BIN)/python -m fusion.evaluate $(DEMO) --data pydocs --output $(DEMO)-results --overwrite

test: $(READY)  ## The whole offline test suite
	$(BIN)/pytest

soak: $(READY)  ## An hour's worth of rows in two minutes: memory has to stay where it was
	$(BIN)/pytest -m soak

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

notebooks: $(READY)  ## Run every notebook, compare what it prints with what stands in it
	$(BIN)/python notebooks/run.py

real-data: $(READY)  ## Check published figures on BEIR data; needs FUSION_DATA
	$(BIN)/python experiments/checks/real_data.py

$(OLDEST)/.ready: pyproject.toml constraints-cpu.txt .ci/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) .ci/oldest.py > $(OLDEST)/bounds.txt
	$(OLDEST)/bin/pip install --quiet --constraint constraints-cpu.txt \
		--constraint $(OLDEST)/bounds.txt --editable '.[train,embedded,bulk,dev]'
	touch $(OLDEST)/.ready

oldest: $(OLDEST)/.ready  ## The lower bounds of pyproject.toml, installed and tested
	$(OLDEST)/bin/pytest $(OLDEST_TESTS)

audit: $(READY)  ## Known vulnerabilities of what is installed; fails on one that is not listed
	$(BIN)/python .ci/audit.py

clean:
	rm -rf $(VENV) $(OLDEST) runs .pytest_cache .mypy_cache .ruff_cache
