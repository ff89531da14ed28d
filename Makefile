# Everything that people and CI run. `make demo` and `make test` work from a fresh clone with Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A stack is forty processes: what is not kept compiled is compiled by each of them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test check style types imports unit e2e bench lock clean
help:
	@echo "make demo   everything on this machine, offline: data, training, promotion, served predictions"
	@echo "make test   every check"
	@echo "make check  the quick half: lint, types, import contract, unit tests"
	@echo "make e2e    every test end to end, with the long ones: about an hour of killing things"
	@echo "make bench  the benchmark"
	@echo "make lock   resolve the dependencies anew into requirements.lock"
	@echo "make clean  end what runs and remove the environment and the home .raysys"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "raysys needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ {uv = /^uv==/} uv' requirements.lock > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)
	$(BIN)/raysys demo

# Side by side: types take one core, and many unit tests wait.
check: $(READY)
	@$(MAKE) --no-print-directory --jobs --output-sync=line style types imports unit

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-logo

unit: $(READY)
	$(BIN)/pytest tests/unit -q -n 3

test: check
	$(BIN)/pytest tests --ignore tests/unit -m "not slow" -q

e2e: $(READY)
	$(BIN)/pytest tests/e2e tests/ray tests/models -q

bench: $(READY)
	$(BIN)/raysys bench

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --extra kuberay \
		--no-annotate --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint requirements.lock \
		--no-annotate --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o kuberay/requirements.lock

clean:
	@test ! -x $(BIN)/raysys || $(BIN)/raysys down
	rm -rf $(VENV) .raysys .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
