# `make demo` and `make test` need Python 3.11 or newer and nothing else: each makes its own
# virtual environment on the first run, outside the tree. See scripts/make-venv.sh.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Parts of the tests, the longest first, each in a process of its own, without the parts that are in
# its folder. "rest" is everything that is in no other part.
PARTS := tests/generation tests/integrations tests/plugins tests/tuning tests/plugins/test_inductor.py \
  tests/examples tests/cli tests/plugins/onednn rest tests/plugins/test_zentorch.py tests/docs \
  tests/plugins/int8 tests/plugins/test_engines.py tests/artifact
PYTEST = python -m pytest
# How many parts run side by side, with one thread each: on two cores three, since some wait for
# processes that hang on purpose. Under `make --jobs`, make decides.
JOBS ?= 3

.PHONY: help demo docs test lint types test-classic test-legacy test-newest release-check \
  bench-overhead $(PARTS)

# Run all parts, even where one fails: $(call run_parts,stack,options of pytest,parts)
define run_parts
venv=$$(scripts/make-venv.sh $(1) | tail -n 1); \
OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --keep-going --output-sync=target \
  $(if $(findstring jobserver,$(MAKEFLAGS)),,--jobs=$(JOBS)) \
  $(3) PARTS="$(3)" PYTEST="$$venv/bin/python -m pytest $(2)" \
  || { echo "make: tests failed on the $(1) stack: see the lines with *** above"; exit 1; }
endef

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## show what this machine can do; WHISPER=folder RECORDING=file.wav adds a transcript
	@venv=$$(scripts/make-venv.sh demo | tail -n 1); TQDM_DISABLE=1 "$$venv/bin/python" scripts/demo.py \
	  $(if $(WHISPER),--whisper "$(WHISPER)" --recording "$(RECORDING)")

docs: ## build the site in site/ and check its links
	@venv=$$(scripts/make-venv.sh docs | tail -n 1); NO_MKDOCS_2_WARNING=1 "$$venv/bin/mkdocs" build --strict --quiet

test: ## run the tests on the modern stack
	+@$(call run_parts,modern,--require-stack modern,$(PARTS))

lint: ## run ruff
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); \
	"$$venv/bin/ruff" check . && "$$venv/bin/ruff" format --check .

types: ## run mypy --strict
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); "$$venv/bin/mypy"

test-classic: ## run the tests with torch 2.8, IPEX 2.8 and optimum's BetterTransformer (7 GB)
	+@$(call run_parts,classic,--require-stack classic,rest tests/plugins tests/tuning tests/examples \
	  tests/integrations tests/cli)

test-legacy: ## run the tests with torch 1.13 from Debian
	+@$(call run_parts,legacy,--require-stack legacy,rest)

test-newest: ## run the tests with the newest torch and transformers (7 GB; not in CI)
	+@$(call run_parts,newest,,$(PARTS))

release-check: ## use the wheel with each extra in a fresh environment (half an hour); EXTRAS="openvino ray" for some
	python3 scripts/check_release.py $(EXTRAS)

bench-overhead: ## measure the cost of a call through cpuaccel
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); "$$venv/bin/python" benchmarks/overhead.py

$(filter-out rest,$(PARTS)):
	@echo "== $@"; $(PYTEST) $(addprefix --ignore=,$(filter $@/%,$(PARTS))) $@

# Both start Ray, with ports of the machine.
tests/docs: | tests/integrations

rest:
	@echo "== all other tests"; $(PYTEST) $(addprefix --ignore=,$(filter-out rest,$(PARTS)))
