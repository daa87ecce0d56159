"""Requests made up from our own OpenAPI, fitting it and not: never a 5xx, always what it says."""

from pathlib import Path
from tempfile import TemporaryDirectory

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service.app import create_app
from service.settings import Settings
from tests.tiny_artifacts import publish_expected


def load_schema(root: Path) -> schemathesis.BaseSchema:
    publish_expected(root)
    app = create_app(Settings(artifacts=root, access_log=False, log_level="error"))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


# Tests are made from the schema when this is imported, before any fixture.
folder = TemporaryDirectory(prefix="gradserve-")
schema = load_schema(Path(folder.name))


@schema.parametrize()
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_answers_are_those_documented(case: schemathesis.Case) -> None:
    # Not every value that fits a schema can be worked with: x³ overflows, a label may be unknown.
    answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
    if answer.status_code >= 400:
        assert answer.headers["content-type"][0] == "application/problem+json"
        assert len(answer.content) < 4096
