# The clients that people have, each in an environment of its own: make test-clients

CLIENTS := umbridge tritonclient kserve mlserver tesseract jax scipy pymc
CLIENT_ENVS := $(foreach client,$(CLIENTS),.venv/clients/$(client)/installed)
.PHONY: test-clients

.venv/clients/%/installed: tests/clients/requirements/%.txt | python
	@echo "Installing $* into .venv/clients/$* …"
	@$(PYTHON) -m venv .venv/clients/$*
	@.venv/clients/$*/bin/python $(INSTALL) --requirement $<
	@touch $@

test-clients: $(DEV)/installed $(CLIENT_ENVS)
	$(DEV)/bin/python -m pytest tests/clients -rs $(ARGS)
