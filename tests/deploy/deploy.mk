# Tests with other people's servers, Ray and Kubernetes' schemas, each in an environment of its own.

DEPLOY_ENVIRONMENTS := servers ray manifests object_store kserve

.PHONY: test-deploy $(DEPLOY_ENVIRONMENTS:%=test-deploy-%)
test-deploy: $(DEPLOY_ENVIRONMENTS:%=test-deploy-%)

$(DEPLOY_ENVIRONMENTS:%=test-deploy-%): test-deploy-%: .venv/deploy-%/installed
	PYTHONPATH=. .venv/deploy-$*/bin/python -m pytest --confcutdir=tests/deploy -W ignore \
	  tests/deploy/test_$*.py

# Who may do what by a bucket policy, evaluated by a package of Node's, where Node is.
test-deploy-object_store: .venv/deploy-policy/installed
.venv/deploy-policy/installed: tests/deploy/policy.json
	@mkdir -p $(@D) && cp $< $(@D)/package.json
	@if command -v npm >/dev/null; then cd $(@D) && npm install --silent; \
	  else echo "npm is not installed here: the bucket policy is NOT evaluated"; fi
	@touch $@

.venv/deploy-%/installed: tests/deploy/%.txt pyproject.toml locks/service.txt | python
	@echo "Installing $* and the service into .venv/deploy-$* …"
	@$(PYTHON) -m venv .venv/deploy-$*
	@.venv/deploy-$*/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --requirement tests/deploy/$*.txt .
	@touch $@
