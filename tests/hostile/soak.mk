# The long checks: an hour of mixed requests (SOAK_SECONDS= for another time), then overload at
# twice, five and ten times the knee, a thousand clients that vanish, and half a minute of
# requests that cost all they can beside people whose latency is held. The Makefile at the root
# includes this file.

SOAK_SECONDS ?= 3600

.PHONY: soak

soak: $(DEV)/installed
	SOAK_SECONDS=$(SOAK_SECONDS) $(DEV)/bin/python -m tests.hostile.soak
	GRADSERVE_LONG=1 $(DEV)/bin/python -m pytest -s tests/hostile/test_hostile_overload.py \
	  tests/hostile/test_hostile_slow.py tests/hostile/test_hostile_cost.py
