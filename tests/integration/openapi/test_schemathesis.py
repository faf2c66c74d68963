"""Whatever the document allows, and much that it does not, is answered as the document says and never with a 5xx."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.openapi.conftest import SERVICES, Apis

pytestmark = pytest.mark.integration
EXAMPLES = 4
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Kept connections."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_keeps_to_the_document(apis: Apis, session: requests.Session, service: str):
    url = apis.urls[service]
    document = session.get(f"{url}/openapi.json", timeout=120).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.validate()
    failures = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        for mode in GenerationMode:

            @seed(1)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                answer = case.call(base_url=url, session=session, headers=apis.headers(service), timeout=120)
                case.validate_response(answer, checks=CHECKS, headers=apis.headers(service))

            try:
                check()
            except Unsatisfiable:  # nothing that could be wrong
                assert mode is GenerationMode.NEGATIVE, operation.label
            except (Exception, ExceptionGroup) as error:  # noqa: BLE001 (each operation is tried, then all are named)
                failures.append(f"{operation.label} ({mode}): {error}")
    assert not failures, "\n\n".join(failures)
