# GNU make, a POSIX shell and Python's venv (3.10 to 3.13) are all that is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
OPENMMLAB := .venv-openmmlab

.PHONY: demo test test-openmmlab lint rehearse bench clean
.DEFAULT_GOAL := demo

$(STAMP): requirements.txt requirements-dev.txt setup.py mmseg_volo/ops/outlook_cpu.c
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "mmseg_volo needs Python 3.10 to 3.13, and $(PYTHON) is `$(PYTHON) -V 2>&1`: make PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into $(VENV); PyTorch is several GB, this takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(STAMP)  ## makes a data set, trains a small VOLO on it, evaluates it, draws its masks
	$(BIN)/python tools/demo.py

test: lint  ## lint and pytest, whose processes have one thread each
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

# mmcv has no wheels for such a torch and is compiled, for CPUs: twelve minutes of processor time, in MAX_JOBS processes.
# The folder takes 8 GB, and the tests as long as those of `make test`
$(OPENMMLAB)/installed: requirements.txt requirements-dev.txt requirements-openmmlab.txt setup.py mmseg_volo/ops/outlook_cpu.c
	@echo "installing OpenMMLab's packages into $(OPENMMLAB); mmcv is compiled, which takes about ten minutes"
	$(PYTHON) -m venv $(OPENMMLAB)
	sed '/^onedl-/d; /^-r /d' requirements.txt requirements-dev.txt >$(OPENMMLAB)/others.txt
	$(OPENMMLAB)/bin/python -m pip install -q --disable-pip-version-check \
	  $$(grep -E '^(torch|setuptools|wheel|ninja)' requirements-openmmlab.txt)
	CUDA_VISIBLE_DEVICES= MAX_JOBS=$${MAX_JOBS:-2} $(OPENMMLAB)/bin/python -m pip install -q \
	  --disable-pip-version-check --no-build-isolation --no-deps $$(grep '^mmcv==' requirements-openmmlab.txt)
	$(OPENMMLAB)/bin/python -m pip install -q --disable-pip-version-check \
	  -r requirements-openmmlab.txt -r $(OPENMMLAB)/others.txt
	$(OPENMMLAB)/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

test-openmmlab: $(OPENMMLAB)/installed  ## pytest with OpenMMLab's own mmengine, mmcv and mmsegmentation
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(OPENMMLAB)/bin/python -m pytest -q -rs -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

rehearse: $(STAMP)  ## every experiment, shrunken, through the tools
	REHEARSE=all $(BIN)/python -m pytest -q tests/project/test_rehearsal.py

bench: $(STAMP)  ## all benchmarks, to benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) $(OPENMMLAB) build *.egg-info .pytest_cache .ruff_cache mmseg_volo/ops/*.so
