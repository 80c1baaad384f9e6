# vpt_analysis: `make figures` draws every figure, `make test` checks everything. `make help` lists the rest.

PYTHON ?= python3
TIER ?= quick
VENV := .venv
BIN := $(VENV)/bin
# The environment's stamp carries a digest of the pins: other pins, another stamp, and the environment is brought up to
# date. Content decides, not file times, so a fresh checkout of the same pins reinstalls nothing and needs no network.
PINS := $(shell cat constraints.txt pyproject.toml | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.made-with-pins-$(PINS)
# timm asks for torchvision, whose usual build asks for a torch of its own: both are installed without dependencies.
BARE := timm torchvision
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg \
	--nbval-cell-timeout=300 --nbval-kernel-startup-timeout=180

PARALLEL := -n auto --dist loadfile
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help figures test lint unit notebooks-check notebooks bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make figures [TIER=quick|full|committed]   draw all figures into paper_figures/out (index.html shows them)'
	@echo 'make test                                  lint, unit tests, doctests, and the notebooks under strict nbval'
	@echo 'make lint                                  ruff only'
	@echo 'make notebooks                             execute the notebooks again, in place'
	@echo 'make bench                                 measure speed and memory beside the plain model and its peers'
	@echo 'make clean                                 remove what these commands made (the environment stays: rm -r $(VENV))'
	@echo 'PYTHON=python3.13 make ...                 choose the Python (3.11 or newer) that the environment is made with'

figures: $(STAMP)
	$(BIN)/vpt-analysis figures --tier $(TIER)

test: lint unit notebooks-check

lint: $(STAMP)
	$(BIN)/ruff check .

# One process a core, one thread each; whole files, so that the fixtures of a file are made once.
unit: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL)

# nbval reports per cell; the cells of a notebook go to one process. Progress bars would be part of the outputs.
notebooks-check: $(STAMP)
	TQDM_DISABLE=1 $(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL) $(NBVAL) notebooks/

notebooks: $(STAMP)
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=600 \
		notebooks/*.ipynb

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf paper_figures/out benchmarks/out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'make: $(PYTHON) is missing or older than Python 3.11. Name a newer one: make PYTHON=python3.13 ...' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt setuptools
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt --no-build-isolation -e '.[test,dev]'
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt --no-deps $(BARE)
	rm -f $(VENV)/.made-with-pins-*
	touch $@
