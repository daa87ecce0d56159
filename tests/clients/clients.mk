# The clients that people have, each in an environment of its own: make test-clients

CLIENTS := umbridge tritonclient kserve mlserver tesseract jax scipy pymc qmcpy generated
CLIENT_ENVS := $(foreach client,$(CLIENTS),.venv/clients/$(client)/installed)
.PHONY: test-clients

.venv/clients/%/installed: tests/clients/requirements/%.txt | python
	@echo "Installing $* into .venv/clients/$* …"
	@$(PYTHON) -m venv .venv/clients/$*
	@.venv/clients/$*/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --requirement $<
	@touch $@

# Node's packages, where Node is: the test says so where it isn't.
.venv/clients/typescript/installed: tests/clients/requirements/typescript.json
	@mkdir -p $(@D) && cp $< $(@D)/package.json
	@if command -v npm >/dev/null; then cd $(@D) && npm install --silent; \
	  else echo "npm is not installed here: no client is generated in TypeScript"; fi
	@touch $@

test-clients: $(DEV)/installed $(CLIENT_ENVS) .venv/clients/typescript/installed
	$(DEV)/bin/python -m pytest tests/clients -rs $(ARGS)
