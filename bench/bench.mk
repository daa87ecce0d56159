# Targets of the side-by-side benchmark; the Makefile at the root includes this file.
#
# The peers live in an environment of their own, so that none of them can change what the service
# or its tests see.

BENCH := .venv/bench

.PHONY: bench bench-quick bench-ray $(BENCH)/installed

bench: $(BENCH)/installed
	@$(BENCH)/bin/python -m bench.run $(ARGS)

bench-quick: $(BENCH)/installed
	@$(BENCH)/bin/python -m bench.run --quick $(ARGS)

# What Ray Serve costs; tests/deploy/deploy.mk makes its environment.
bench-ray: .venv/deploy-ray/installed
	PYTHONPATH=. .venv/deploy-ray/bin/python -m bench.ray_serve $(ARGS)

$(BENCH)/installed: | python
	@$(INSTALL) bench
