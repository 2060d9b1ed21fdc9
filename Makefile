# Every target is one line of uv or npm underneath; tools/bootstrap installs uv in .tools/ when it is missing.
.DEFAULT_GOAL := help
RUN := .venv/bin
# Hundreds of processes start in a test run, and each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test bench lint format build build-edge lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready ## install everything into .venv

.venv/.ready: requirements/dev.txt tools/bootstrap pyproject.toml api/pyproject.toml edge/pyproject.toml
	@tools/bootstrap

demo: setup ## the whole platform on embedded PostgreSQL; ONCE=1 exits after the first digest
	@$(RUN)/python -m demo $(if $(ONCE),--once)

test: setup ## lint, types, import rules and every test
	@tools/test

bench: setup ## the figures that the README quotes, each beside what it is compared with
	@$(RUN)/python -m bench

lint: setup ## ruff, mypy, import-linter
	@tools/lint

format: setup ## rewrite the sources to the house style
	@$(RUN)/ruff check --fix-only --quiet . ; $(RUN)/ruff format .

build: setup ## wheels of the three distributions and the widget's bundle, into dist/
	@tools/build

build-edge: setup ## the connector as a program without Python, tried and measured, into dist/edge/
	@tools/build-edge

lock: setup ## compile requirements/ again from the pyproject files
	@tools/lock
