# Everything is set up by the target that needs it:
#
#   make quickstart         a small FLUX ControlNet training run on this machine's CPU
#   make quickstart-lora    the same for LoRA adapters
#   make tiny-flux          a small FLUX that paints shapes, from nothing
#   make test               linters, type check, test suite
#
# Variables: PYTHON (the interpreter for the environment), VENV (its folder),
# ARGS (extra arguments for the launcher in quickstart, for pytest in test), JOBS (how many tests
# run at a time).

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

# $(call train,FOLDER,RECIPE,PACKAGE): every call gets a folder of its own (runs/quickstart,
# runs/quickstart-2, ...): the launcher does not write into a folder that holds a run, and nobody's
# earlier run is deleted.
define train
@run=runs/$(1); n=1; while [ -e "$$run" ]; do n=$$((n + 1)); run=runs/$(1)-$$n; done; \
set -x; $(BIN)/launcher --recipe $(2) \
    --config $(3)/configs/quickstart.yaml output_dir=$$run $(ARGS)
endef

quickstart: setup ## train a tiny FLUX ControlNet on the CPU, into runs/quickstart
	$(call train,quickstart,flux_controlnet,flux_controlnet_plugin)

quickstart-lora: setup ## train LoRA adapters of a tiny FLUX on the CPU, into runs/quickstart-lora
	$(call train,quickstart-lora,flux_lora_dreambooth,flux_lora_plugin)

tiny-flux: setup ## train a small FLUX that paints shapes from nothing, for hours; goes on if interrupted
	$(BIN)/python examples/tiny_flux/make.py runs/tiny-flux runs/tiny-flux-shapes

test: lint browser ## linters, type check, then all tests (one file: make test ARGS=tests/test_imports.py)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

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
