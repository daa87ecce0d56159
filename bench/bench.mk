# Targets of the side-by-side benchmark; the Makefile at the root includes this file.
#
# The peers live in an environment of their own, so that none of them can change what the service
# or its tests see.

BENCH := .venv/bench

.PHONY: bench bench-quick $(BENCH)/installed

bench: $(BENCH)/installed
	@$(BENCH)/bin/python -m bench.run $(ARGS)

bench-quick: $(BENCH)/installed
	@$(BENCH)/bin/python -m bench.run --quick $(ARGS)

$(BENCH)/installed: | python
	@$(INSTALL) bench
