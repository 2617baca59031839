# Everything a person or CI does with the repository; `make help` lists it.
PYTHON ?= python3
VENV := .venv
ARGS ?=

.PHONY: help run test lint lock audit bench soak clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## start everything: PostgreSQL, broker, API, workers, sandbox (ARGS="--help")
	@$(VENV)/bin/wattledger up $(ARGS)

test: $(VENV)/.test ## lint, then run every test (ARGS="-k relay" goes to pytest)
	@infra/deploy/rabbitmq.sh
	@$(MAKE) --no-print-directory lint
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/.test ## style, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

lock: ## pin what pyproject.toml asks for (ARGS=--upgrade moves to the newest)
	@PYTHON=$(PYTHON) infra/deploy/lock.sh $(ARGS)

audit: $(VENV)/.test ## ask osv.dev whether a locked dependency has a known hole
	@WATTLEDGER_AUDIT=1 $(VENV)/bin/python -m pytest -q tests/test_dependencies.py

bench: $(VENV)/.test ## measure against the baselines (ARGS="append_1 rebuild --json out.json")
	@infra/deploy/rabbitmq.sh
	@$(VENV)/bin/python -m tests.benchmarks $(ARGS)

soak: $(VENV)/.test ## kill, hold and restart everything under load (ARGS="--minutes 2 --seed 7")
	@infra/deploy/rabbitmq.sh
	@$(VENV)/bin/python -m tests.soak $(ARGS)

clean: ## remove the environment and the caches, not the data
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, so a changed lock or a changed script name installs again.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) infra/deploy/venv.sh $(VENV) requirements.lock
	@touch $@

$(VENV)/.test: requirements-test.lock pyproject.toml
	@PYTHON=$(PYTHON) infra/deploy/venv.sh $(VENV) requirements-test.lock
	@touch $@ $(VENV)/.runtime
