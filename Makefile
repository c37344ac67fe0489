# Everything is set up by the target that needs it:
#
#   make quickstart         a FLUX ControlNet that learns to control, on this machine's CPU
#   make quickstart-lora    LoRA adapters that learn a new shape
#   make tiny-flux          a small FLUX that paints shapes, from nothing
#   make test               linters, type check, test suite
#
# Variables: PYTHON (the interpreter for the environment), VENV (its folder),
# ARGS (extra arguments: for the launcher in quickstart and quickstart-lora, for pytest in test), JOBS
# (how many tests run at a time).

PYTHON ?=
VENV ?= .venv
ARGS ?=
JOBS ?= 2
UPGRADE ?=

BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup quickstart quickstart-lora tiny-flux test browser lint format constraints clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 26

setup: ## create .venv and install everything, exact versions; does nothing when up to date
	@PYTHON='$(PYTHON)' VENV='$(VENV)' sh scripts/setup.sh

# $(call train,FOLDER,RECIPE,PACKAGE,MEASURED): trains, scores what has been learned, writes the
# report. MEASURED: how benchmarks/control.py is told what to score. Every call gets a folder of its
# own (runs/quickstart, runs/quickstart-2, ...): the launcher does not write into a folder that holds
# a run, and nobody's earlier run is deleted. With ARGS=--dry-run there is nothing to score.
define train
@set -e; run=runs/$(1); n=1; while [ -e "$$run" ]; do n=$$((n + 1)); run=runs/$(1)-$$n; done; \
set -x; \
$(BIN)/launcher --recipe $(2) --config $(3)/configs/quickstart.yaml $(ARGS) output_dir=$$run; \
[ -e $$run/exported.json ] || exit 0; \
$(BIN)/python benchmarks/control.py $(4) --grid $$run/control.png --json $$run/control.json; \
$(BIN)/launcher report $$run; \
{ set +x; } 2>/dev/null; \
echo "To look at: $$run/control.png (controls and pictures), $$run/report.html (the run)"
endef

quickstart: setup ## teach a small FLUX to paint shapes where a ControlNet tells, into runs/quickstart
	$(call train,quickstart,flux_controlnet,flux_controlnet_plugin,$$run)

quickstart-lora: setup ## teach it a new shape by LoRA adapters, into runs/quickstart-lora
	$(call train,quickstart-lora,flux_lora_dreambooth,flux_lora_plugin,--shapes cross --lora $$run)

tiny-flux: setup ## train a small FLUX that paints shapes from nothing, for hours; goes on if interrupted
	$(BIN)/python examples/tiny_flux/make.py runs/tiny-flux runs/tiny-flux-shapes

test: lint browser ## linters, type check, then all tests (one file: make test ARGS=tests/test_imports.py)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

browser: ## get a Chromium for the tests that look at a page, if this machine lets us
	@sh scripts/browser.sh --install >/dev/null || echo 'The tests that look at a page are skipped.' >&2

lint: setup ## ruff and mypy, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy hooks launcher

format: setup ## let ruff mend and format the source
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: setup ## write constraints.txt anew from setup.cfg (newest versions: UPGRADE=--upgrade)
	$(BIN)/python -m pip install --quiet uv
	PATH="$(BIN):$$PATH" $(BIN)/python scripts/constraints.py $(UPGRADE)

clean: ## remove caches and build products; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
