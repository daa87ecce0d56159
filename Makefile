# The commands of gradserve. Each makes the environment that it needs, once, under .venv/.
#
#   make serve PORT=9000                            another port; HOST=0.0.0.0 for other machines
#   make test ARGS="-k curve"                       some of the tests
#   make train JOB="curve --data points.csv"         one job, with its options
#   make train TORCH_INDEX=https://download.pytorch.org/whl/cpu    PyTorch without CUDA
#   make serve PYTHON=python3.13                    another interpreter, 3.11 or newer

PYTHON ?= python3
# Of these, only what is given on make's own command line counts: HOST and PORT are in many shells'
# environments for other programs. The service's own variables are GRADSERVE_HOST and GRADSERVE_PORT.
HOST =
PORT =
ARGS ?=
JOB ?= all
# An index to look for PyTorch on, besides pip's own; and any other arguments for pip.
TORCH_INDEX ?=
PIP_ARGS ?=

SERVICE := .venv/service
DEV := .venv/dev
AUDIT := .venv/audit
INSTALL := -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
FROM_INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help serve test train lint format lock audit clean python

help:
	@echo "make serve    serve the models in artifacts/ on http://127.0.0.1:8000"
	@echo "make test     run every test"
	@echo "make train    train and publish every model"
	@echo "make lint     check style and types;  make format: put the style right"
	@echo "make bench    compare with other servers, 20 minutes;  make bench-quick: in 3"
	@echo "make test-clients    run the clients that people have, each in an environment of its own"
	@echo "make soak     an hour of mixed and hostile requests, then overload"
	@echo "make lock     pin the newest versions of all dependencies;  make audit: check the pins"
	@echo "make clean    remove the environments"

serve: $(SERVICE)/installed
	@exec $(SERVICE)/bin/python -m service $(if $(HOST),--host "$(HOST)") $(if $(PORT),--port "$(PORT)") $(ARGS)

test: $(DEV)/installed
	$(DEV)/bin/python -m pytest $(ARGS)

train: $(DEV)/installed
	$(DEV)/bin/python -m training $(JOB)

lint: $(DEV)/installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

format: $(DEV)/installed
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

lock: $(SERVICE)/installed
	$(SERVICE)/bin/python locks/update.py

audit: $(AUDIT)/installed
	@for lock in locks/*.txt; do \
	  echo "$$lock"; $(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --requirement "$$lock" || exit 1; \
	done

clean:
	rm -rf .venv

# A stamp file says that an environment is as pyproject.toml and the lock want it.

$(SERVICE)/installed: pyproject.toml locks/service.txt | python
	@echo "Installing the service into $(SERVICE) …"
	@$(PYTHON) -m venv $(SERVICE)
	@$(SERVICE)/bin/python $(INSTALL) --constraint locks/service.txt --editable .
	@touch $@

$(DEV)/installed: pyproject.toml locks/dev.txt | python
	@echo "Installing training and tests into $(DEV): with PyTorch, a large download the first time …"
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(INSTALL) $(FROM_INDEX) --constraint locks/dev.txt --editable ".[test]"
	@touch $@

$(AUDIT)/installed: | python
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python $(INSTALL) pip-audit
	@touch $@

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gradserve needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }

include bench/bench.mk
include tests/clients/clients.mk
include tests/hostile/soak.mk
include tests/deploy/deploy.mk
