# All of samrt's set-up: `make demo` shows it, `make test` proves it. Both may be run again at any time.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CXX ?= c++
SOURCES := $(shell find engine cpp_ext setup.py pyproject.toml -type f -not -name '*.so' -not -path '*/__pycache__/*')
EXPORT_SOURCES := $(shell find export -type f -name '*.py')
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo size test test-all test-interop lint dev clean check-tools

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1\t/' | expand -t 20

check-tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "samrt needs Python 3.10 or newer; '$(PYTHON)' is not. Run: make PYTHON=/path/to/python3.10 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' lacks the venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@command -v $(CXX) >/dev/null || { \
	  echo "No C++ compiler: '$(CXX)' is not found. Install g++ or clang (on Debian and Ubuntu: apt install g++), or run: make CXX=/path/to/compiler ..." >&2; exit 1; }
	@inc=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["include"])'); test -f "$$inc/Python.h" || { \
	  echo "Python's headers are missing: no Python.h in $$inc (on Debian and Ubuntu: apt install python3-dev)." >&2; exit 1; }

$(BIN)/python: | check-tools
	@$(PYTHON) -m venv $(VENV)

NO_NETWORK := { echo "Installation failed, see above. If no package index could be reached, connect to a network or set PIP_INDEX_URL or PIP_FIND_LINKS to one that can be." >&2; exit 1; }

$(VENV)/.runtime: $(SOURCES) | $(BIN)/python
	@rm -rf build/lib* build/bdist* build/temp* samrt.egg-info
	@CXX=$(CXX) $(PIP) install --quiet --no-compile --upgrade . || $(NO_NETWORK)
	@rm -rf build/lib* build/bdist* build/temp* samrt.egg-info
	@touch $@

$(VENV)/.test: $(SOURCES) $(EXPORT_SOURCES) constraints.txt | $(BIN)/python
	@rm -rf build/lib* build/bdist* build/temp* samrt.egg-info
	@CXX=$(CXX) $(PIP) install --quiet --upgrade -c constraints.txt '.[export,test]' || $(NO_NETWORK)
	@rm -rf build/lib* build/bdist* build/temp* samrt.egg-info
	@touch $@ $(VENV)/.runtime

DEMO_BOX ?= 318,293,382,375

demo: $(VENV)/.runtime ## install into .venv and segment a kidney in an example image
	@$(BIN)/samrt infer examples/ct_phantom.png --box $(DEMO_BOX) --output-dir out/demo --force

size: $(VENV)/.runtime ## what the runtime weighs in .venv, pip and setuptools left out (run it before make test)
	@du -sh --si --exclude='pip*' --exclude='setuptools*' --exclude=pkg_resources --exclude=_distutils_hack $(VENV)/lib/python3*/site-packages

test: $(VENV)/.test ## install the test tools into .venv and run the test suite, the slow tests left out
	@$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.test ## all tests; some need 16 GB of memory and minutes each (ViT-H)
	@$(BIN)/python -m pytest

test-interop: $(VENV)/.test ## DCMTK, dicom3tools and Orthanc against what is read and written (apt install dcmtk dicom3tools orthanc orthanc-dicomweb)
	@for tool in dcmdump storescu dciodvfy Orthanc; do command -v $$tool >/dev/null || \
	  echo "$$tool is missing, its tests will be skipped (on Debian and Ubuntu: apt install dcmtk dicom3tools orthanc orthanc-dicomweb)" >&2; done
	@$(BIN)/python -m pytest tests/interop

lint: $(VENV)/.test ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

dev: | $(BIN)/python ## editable install for development
	@CXX=$(CXX) $(PIP) install --quiet -c constraints.txt -e '.[export,test]' || $(NO_NETWORK)

clean: ## remove what was built (not .venv)
	@rm -rf build out *.egg-info engine/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find engine export tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	@rm -f engine/samrt/_native*.so engine/samrt/_ops*.so

# ---- C++ kernels ----

CPP_BUILD := build/cpp_tests
CPP_SOURCES := $(wildcard cpp_ext/src/*.cpp) cpp_ext/tests/test_kernels.cpp
OPS_SOURCES := $(filter-out cpp_ext/ops/operators.cpp,$(wildcard cpp_ext/ops/*.cpp)) $(wildcard cpp_ext/tests/test_*operators.cpp) cpp_ext/tests/test_placement.cpp
OPS_HEADERS := $(wildcard cpp_ext/ops/*.hpp) cpp_ext/include/samrt/placement.hpp cpp_ext/tests/operators.hpp
OPS_FLAGS := -std=c++17 -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -Wextra -Icpp_ext/include -pthread
CPP_HEADERS := $(wildcard cpp_ext/include/samrt/*.hpp cpp_ext/src/*.hpp)
CPP_FLAGS := -std=c++17 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Icpp_ext/include -pthread
ARM_CXX ?= aarch64-linux-gnu-g++
ARM_EMULATOR ?= qemu-aarch64
BENCH_RUNS ?= 30
RESULTS ?= benchmarks/results
# What make bench measures, in this order; what is left out keeps its recorded figures in the table.
PARTS ?= peers tiny everything int8
PEERS ?=
TINY ?=
EVERYTHING ?= --points 16 --runs 1 --sweep
INT8 ?=
SCALING ?=
BENCH_JSON ?= benchmarks/results/kernels.json

GOLDEN ?= ../shared/golden
PARITY ?= --sensitivity --json benchmarks/results/parity.json

.PHONY: bench bench-peers bench-tiny bench-everything bench-int8 targets bench-scaling native bench-kernels test-cpp test-arm arm-tools parity

parity: $(VENV)/.test ## every family against the outputs of its original code (GOLDEN=folder of vectors)
	@test -f $(GOLDEN)/index.json || { echo "No golden vectors in '$(GOLDEN)': run make GOLDEN=/path parity" >&2; exit 1; }
	@$(BIN)/python benchmarks/parity.py $(GOLDEN) $(PARITY)

# Without their dependencies: of these torchvision, timm and a second onnxruntime are not needed.
PEER_PACKAGES := samexporter==0.5.0 osam==0.8.1 imgviz cmap loguru pydantic pydantic-core annotated-types typing-inspection click

$(VENV)/.peers: Makefile | $(VENV)/.test
	@$(PIP) install --quiet --no-deps segment-anything==1.0 $(PEER_PACKAGES) || $(NO_NETWORK)
	@touch $@

bench: $(VENV)/.test $(VENV)/.peers ## every figure that has a target, then the table of targets (PARTS='peers tiny' for some; some 35 minutes)
	@for part in $(PARTS); do $(MAKE) --no-print-directory bench-$$part || exit 1; echo; done
	@$(BIN)/python benchmarks/targets.py --results $(RESULTS)

targets: $(VENV)/.test ## the table of targets from the recorded figures; tables in the documents filled in
	@$(BIN)/python benchmarks/printed.py
	@$(BIN)/python benchmarks/targets.py --results $(RESULTS)

bench-peers: $(VENV)/.test $(VENV)/.peers ## samrt beside its peers, the same weights and threads (PEERS='--model mobile_sam --runs 5')
	@$(BIN)/python benchmarks/peers.py --json $(RESULTS)/peers.json $(PEERS)

bench-tiny: $(VENV)/.test ## the embedded model as a user meets it: file to mask, box to mask, cold start
	@$(BIN)/python benchmarks/tiny.py --json $(RESULTS)/tiny.json $(TINY)

bench-everything: $(VENV)/.test $(VENV)/.peers ## everything mode beside segment-anything's generator
	@$(BIN)/python benchmarks/everything.py --json $(RESULTS)/everything.json $(EVERYTHING)

bench-int8: $(VENV)/.test ## int8 encoders beside float32, quantised first (INT8='--work build/int8' keeps the bundles)
	@$(BIN)/python benchmarks/int8_encoder.py --json $(RESULTS)/int8.json $(INT8)

bench-scaling: $(VENV)/.test ## time and memory over pictures, prompts, threads, everything mode and frames (some six minutes)
	@$(BIN)/python benchmarks/scaling.py --json benchmarks/results/scaling.json --plot docs/scaling.svg $(SCALING)

native: $(VENV)/.test ## build the C++ extension in place, for work on the sources
	@$(PIP) install --quiet 'setuptools>=77' 'pybind11>=2.13'
	@CXX=$(CXX) $(BIN)/python setup.py --quiet build_ext --inplace

bench-kernels: $(VENV)/.test ## time the kernels against Pillow, NumPy and PyTorch
	@$(BIN)/python benchmarks/kernels.py --runs $(BENCH_RUNS) --json $(BENCH_JSON)

$(CPP_BUILD)/golden.bin: cpp_ext/tests/make_golden.py $(wildcard engine/samrt/reference*.py) | $(VENV)/.runtime
	@PYTHONPATH=engine $(BIN)/python cpp_ext/tests/make_golden.py $@

$(CPP_BUILD)/sanitized: $(CPP_SOURCES) $(CPP_HEADERS) | $(CPP_BUILD)/golden.bin
	@$(CXX) $(CPP_FLAGS) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all $(CPP_SOURCES) -o $@

$(CPP_BUILD)/ops_sanitized: $(OPS_SOURCES) $(OPS_HEADERS)
	@mkdir -p $(CPP_BUILD)
	@$(CXX) $(OPS_FLAGS) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all $(OPS_SOURCES) -o $@

test-cpp: $(CPP_BUILD)/sanitized $(CPP_BUILD)/golden.bin $(CPP_BUILD)/ops_sanitized ## the C++ tests of kernels and operators under the address and undefined-behaviour sanitizers
	@$(CPP_BUILD)/sanitized $(CPP_BUILD)/golden.bin
	@for table in vnni avx512 avx2 baseline; do SAMRT_OPS_KERNELS=$$table $(CPP_BUILD)/ops_sanitized || exit 1; done

arm-tools:
	@command -v $(ARM_CXX) >/dev/null || { \
	  echo "No AArch64 compiler: '$(ARM_CXX)' is not found. Install it (on Debian and Ubuntu: apt install g++-aarch64-linux-gnu), or run: make ARM_CXX=/path/to/compiler test-arm" >&2; exit 1; }
	@command -v $(ARM_EMULATOR) >/dev/null || { \
	  echo "No AArch64 emulator: '$(ARM_EMULATOR)' is not found. Install it (on Debian and Ubuntu: apt install qemu-user), or run: make ARM_EMULATOR=/path/to/emulator test-arm" >&2; exit 1; }

$(CPP_BUILD)/arm64: $(CPP_SOURCES) $(CPP_HEADERS) | arm-tools $(CPP_BUILD)/golden.bin
	@$(ARM_CXX) $(CPP_FLAGS) -O3 -static $(CPP_SOURCES) -o $@

$(CPP_BUILD)/ops_arm64: $(OPS_SOURCES) $(OPS_HEADERS) | arm-tools
	@mkdir -p $(CPP_BUILD)
	@$(ARM_CXX) $(OPS_FLAGS) -O2 -static $(OPS_SOURCES) -o $@

test-arm: arm-tools $(CPP_BUILD)/arm64 $(CPP_BUILD)/golden.bin $(CPP_BUILD)/ops_arm64 ## the same tests cross-compiled for AArch64, in an emulator
	@$(ARM_EMULATOR) $(CPP_BUILD)/arm64 $(CPP_BUILD)/golden.bin
	@$(ARM_EMULATOR) $(CPP_BUILD)/ops_arm64
