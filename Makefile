# `make demo` and `make test` need Python 3.11 or newer and nothing else: each makes its own
# virtual environment on the first run, outside the tree. See scripts/make-venv.sh.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Each in a process of its own: forking one that many engines have run in has ended in a crash.
ENGINES := tests/plugins/onednn tests/plugins/int8 $(wildcard tests/plugins/test_*.py)
.PHONY: help demo test lint types test-classic test-legacy test-newest bench-overhead

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## embed real text with real weights, several pipelines side by side
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); "$$venv/bin/cpuaccel" bench demo

test: ## run the tests on the modern stack
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); \
	"$$venv/bin/python" -m pytest --ignore=tests/plugins; \
	for part in $(ENGINES); do "$$venv/bin/python" -m pytest $$part; done

lint: ## ruff
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); \
	"$$venv/bin/ruff" check . && "$$venv/bin/ruff" format --check .

types: ## mypy --strict
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); "$$venv/bin/mypy"

test-classic: ## the tests with torch 2.8, IPEX 2.8 and optimum's BetterTransformer (7 GB)
	@venv=$$(scripts/make-venv.sh classic | tail -n 1); "$$venv/bin/python" -m pytest

test-legacy: ## the tests with torch 1.13 from Debian
	@venv=$$(scripts/make-venv.sh legacy | tail -n 1); "$$venv/bin/python" -m pytest

test-newest: ## the tests with the newest torch and transformers there are (7 GB; not in CI)
	@venv=$$(scripts/make-venv.sh newest | tail -n 1); "$$venv/bin/python" -m pytest

bench-overhead: ## what calling through cpuaccel costs
	@venv=$$(scripts/make-venv.sh modern | tail -n 1); "$$venv/bin/python" benchmarks/overhead.py
