# `make help` lists the targets. PYTHON names the interpreter that makes .venv (3.11 or newer).
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
SBOM := $(VENV)/sbom
FILE ?= sbom.json
MAIN := nasbench101
SEARCHED := nas_bench_macro
SEED := 0
ROBUSTNESS := faults races fuzz soak mutants

export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := 1
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION := false

.DEFAULT_GOAL := help
.PHONY: git help setup run shrink ui clean reproduce report study up down status deploy schedule-demo audit sbom system \
	test lint docs docs-serve bench test-faults test-stack test-slow test-newest test-outside test-all stale

##@ Everybody
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Create .venv with the tested versions, unless it is up to date

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,servers,dev,docs]'
	touch $@

run: $(READY) ## Run the whole method on NAS-Bench-Macro and real images: shrink, supernet, search, retrain
	@python -m flows.nas --benchmark $(SEARCHED) --seed $(SEED)

# DVC finds its stages and caches by git: an archive of the source code has neither.
git:
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo 'this folder is no git clone, which DVC needs: git clone the repository' >&2; exit 2; }

shrink: git $(READY) ## Shrink NAS-Bench-101 from 423,624 cells to 13,000 on real accuracies
	python -m dvc repro shrink@$(MAIN)-$(SEED)
	@"$(BIN)/lissnas" show data/shrunk/$(MAIN)/seed-$(SEED)

ui: $(READY) ## Serve MLflow's page of the runs logged here (UI_PORT, default 5000)
	python -m mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(or $(UI_PORT),5000)

clean: ## Remove the pipeline's outputs and .venv
	rm -rf $(VENV) data report site .services .lissnas mlflow.db mlruns mlartifacts .prefect .mlflow.lock .dvc/cache .dvc/tmp build dist *.egg-info sbom.json .audit
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Researchers
reproduce: git $(READY) ## Run the whole pipeline of dvc.yaml: every benchmark and seed of params.yaml
	python -m dvc repro

report: git $(READY) ## Compare all methods and write report/index.html, with the paper's figures alongside
	python -m dvc repro report

study: $(READY) ## Run or resume a study (studies/results/): NAME=shrink, compare, compare_ofa, huge, scaling, labels, packaged_labels, locality, ranking, faults, races, fuzz, soak or mutants
	python -m $(if $(filter $(NAME),$(ROBUSTNESS)),tests.robustness,studies) --name $(or $(NAME),shrink)

##@ Platform engineers
up: $(READY) ## Start Prefect, MLflow, object storage and workers (PREFECT_PORT, MLFLOW_PORT, DATABASE=postgresql)
	@python -m infra.stack up

down: $(READY) ## Stop everything that `make up` started
	@python -m infra.stack down

status: $(READY) ## Show the health and the addresses of the services
	@python -m infra.stack status

deploy: $(READY) ## Apply prefect.yaml: deployments, schedules, pools, automations
	@python -m infra.deploy

schedule-demo: $(READY) ## Create a schedule that fires in seconds, and follow its run
	@python -m infra.schedule_demo

audit: $(READY) ## Check the installed packages for published vulnerabilities (needs the network)
	@rm -f .audit
	@pip-audit --local --skip-editable --progress-spinner off --timeout 30 --output .audit; code=$$?; \
	if [ -s .audit ]; then cat .audit; \
	elif [ $$code -ne 0 ]; then echo 'audit: the advisory service of PyPI did not answer: nothing was checked' >&2; fi; \
	exit $$code

# A separate venv: cyclonedx-bom installs a grammar of URLs that jsonschema, and thus Prefect, would parse for 3 s at startup.
$(SBOM)/.ready: constraints.txt
	$(PYTHON) -m venv $(SBOM)
	"$(CURDIR)/$(SBOM)/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt cyclonedx-bom
	touch $@

# --no-validate: validation of the file takes a minute.
sbom: $(READY) $(SBOM)/.ready ## List the installed packages, with versions and licences, in FILE (sbom.json; CycloneDX)
	$(SBOM)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible --no-validate --output-file "$(FILE)" "$(BIN)/python"

system: ## Install the Debian packages that some tests use (needs root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium git postgresql

##@ Developers
test: $(READY) lint ## Lint, type-check and run the tests
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(READY) ## ruff, ruff format, mypy --strict
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy

docs: $(READY) ## Build the documentation site in site/ (site/index.html); a warning is an error
	python -m mkdocs build --strict

docs-serve: $(READY) ## Serve the documentation site and rebuild it on changes (DOCS_PORT, default 8000)
	python -m mkdocs serve --dev-addr 127.0.0.1:$(or $(DOCS_PORT),8000)

bench: $(READY) ## Measure speed, as ratios to a reference in the same run
	OMP_NUM_THREADS=1 python -m pytest -m bench tests/bench

test-faults: $(READY) ## Run all fault tests: kills, damage, invalid input, secrets, mutants, fuzzing
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile -m "not slow and not bench and not stack" tests/faults
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile -m faults --ignore tests/faults tests

test-stack: $(READY) ## Kill and restart the services of make up, on SQLite and PostgreSQL (20 minutes)
	OMP_NUM_THREADS=1 python -m pytest -m stack tests/infra/test_stack.py

test-slow: $(READY) ## Check the acceptance figures on all benchmarks, ten seeds
	OMP_NUM_THREADS=1 python -m pytest -m slow

test-newest: ## Run the tests with the newest versions that resolve, in .venv-newest (not the tested ones of constraints.txt)
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[all,servers,dev,docs]'
	.venv-newest/bin/python -m pip check
	PATH="$(CURDIR)/.venv-newest/bin:$(PATH)" OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-outside: $(READY) ## Build the wheel, install it into new environments without constraints, and use it in an empty folder
	python -m pytest -m outside tests/outside

test-all: test test-faults test-stack test-slow test-newest test-outside ## Run all of these tests

stale: git $(READY) ## List the stages of dvc.yaml whose code or parameters changed since dvc.lock
	@python -m dvc repro --allow-missing --dry --keep-going 2>&1 | awk -F "'" ' \
		/^Running stage / {found = found "\n  " $$2} /^ERROR/ {wrong = wrong "\n  " $$0} \
		END {if (found wrong == "") exit; \
			print "dvc.lock is stale:" found wrong "\nrun `dvc repro`; if no output changes, `dvc commit -f`" > "/dev/stderr"; exit 1}'
