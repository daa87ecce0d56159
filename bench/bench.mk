# Targets of the side-by-side benchmark; the Makefile at the root includes this file.
#
# The peers live in an environment of their own, so that none of them can change what the service
# or its tests see.

BENCH := .venv/bench

.PHONY: bench bench-quick

bench: $(BENCH)/installed
	@$(BENCH)/bin/python -m bench.run $(ARGS)

bench-quick: $(BENCH)/installed
	@$(BENCH)/bin/python -m bench.run --quick $(ARGS)

$(BENCH)/installed: bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(INSTALL) $(FROM_INDEX) --requirement bench/requirements.txt
	@touch $@
