# The commands of gradserve. Each makes the environment that it needs, once, under .venv/.
#
#   make serve PORT=9000                            another port; HOST=0.0.0.0 for other machines
#   make test ARGS="-k curve"                       some of the tests
#   make train JOB="curve --data points.csv"         one job, with its options
#   make train TORCH_INDEX=https://download.pytorch.org/whl/cpu    PyTorch without CUDA
#   make serve PYTHON=python3.13                    another interpreter, 3.11 or newer

PYTHON ?= python3
# HOST and PORT are taken from make's command line only: many shells have them in the environment, for
# other programs. The service's own variables are GRADSERVE_HOST and GRADSERVE_PORT.
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
LOWEST := .venv/lowest
# Makes an environment from its locks unless it exists; without PYTHON= its Python may be any version.
INSTALL = $(PYTHON) locks/install.py $(if $(filter file,$(origin PYTHON)),--any) --pip="$(PIP_ARGS)"

.DEFAULT_GOAL := help
.PHONY: help serve test test-lowest coverage train lint format lock platforms audit clean python \
  $(SERVICE)/installed $(DEV)/installed $(AUDIT)/installed $(LOWEST)/installed

help:
	@echo "make serve    serve the models in artifacts/ on http://127.0.0.1:8000"
	@echo "make test     run every test"
	@echo "make test-lowest  the service's tests with the lowest versions that pyproject.toml allows"
	@echo "make coverage  how much of the code the tests run"
	@echo "make train    train and publish the homework's models"
	@echo "make lint     check style and types;  make format: fix the style"
	@echo "make bench    compare with other servers, 25 minutes;  make bench-quick: in 3"
	@echo "make test-clients    run the clients that people have, each in an environment of its own"
	@echo "make soak     an hour of mixed and hostile requests, then overload"
	@echo "make lock     pin the newest versions of all dependencies;  make audit: look for known weaknesses"
	@echo "make platforms  ask whether every lock can be installed on macOS, Windows and Linux"
	@echo "make clean    remove the environments"

serve: $(SERVICE)/installed
	@exec $(SERVICE)/bin/python -m service $(if $(HOST),--host "$(HOST)") $(if $(PORT),--port "$(PORT)") $(ARGS)

test: $(DEV)/installed
	$(DEV)/bin/python -m pytest $(ARGS)

# Without PyTorch: what the service promises, with the oldest packages that it may be installed with.
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest tests/service tests/contract $(ARGS)

# Printed, not gated. What runs in processes of its own (workers, jobs) is not counted.
coverage: $(DEV)/installed
	$(DEV)/bin/python -m pytest --cov=contract --cov=service --cov=training --cov=gradserve \
	  --cov-report=term:skip-covered tests/contract tests/service tests/training $(ARGS)

train: $(DEV)/installed
	$(DEV)/bin/python -m training $(JOB)

lint: $(DEV)/installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

format: $(DEV)/installed
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

lock: $(AUDIT)/installed
	$(AUDIT)/bin/python locks/update.py --upgrade

platforms: $(AUDIT)/installed
	$(AUDIT)/bin/python locks/platforms.py

audit: $(AUDIT)/installed
	@for lock in locks/*.txt; do \
	  echo "$$lock"; $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --requirement "$$lock" || exit 1; \
	done

clean:
	rm -rf .venv

$(SERVICE)/installed: | python
	@$(INSTALL) service

$(DEV)/installed: | python
	@$(INSTALL) dev --torch-index="$(TORCH_INDEX)"

$(AUDIT)/installed: | python
	@$(INSTALL) audit

$(LOWEST)/installed: | python
	@$(INSTALL) lowest

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gradserve needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }

include bench/bench.mk
include tests/clients/clients.mk
include tests/hostile/soak.mk
include tests/deploy/deploy.mk
