"""Whatever the document allows, and much that it does not, is answered as the document says and never with a 5xx.

Always the same few requests an operation, half of the allowed ones about things that are there. A hunt for more:
`HEADWATER_EXAMPLES=200 HEADWATER_SEED=7 python -m pytest tests/integration/openapi/test_schemathesis.py`.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.openapi import things
from tests.integration.openapi.conftest import SERVICES, Apis

pytestmark = pytest.mark.integration
EXAMPLES = int(
    os.environ.get("HEADWATER_EXAMPLES", "3")
)  # half of them through the gateway, behind which the others are
SEED = int(os.environ.get("HEADWATER_SEED", "1"))
SECONDS_AN_EXAMPLE = 60  # of every operation of a service, on a busy machine
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Kept connections."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def ids(apis: Apis) -> dict[str, str]:
    """Of things that are there."""
    return things.make(apis)


@pytest.mark.timeout(SECONDS_AN_EXAMPLE * EXAMPLES)
@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_keeps_to_the_document(
    apis: Apis, session: requests.Session, ids: dict[str, str], service: str
):
    url = apis.urls[service]
    document = session.get(f"{url}/openapi.json", timeout=120).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.validate()
    failures = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        for mode in GenerationMode:

            @seed(SEED)
            @settings(
                max_examples=EXAMPLES // 2 if service == "gateway" else EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(
                case=operation.as_strategy(generation_mode=mode),
                is_there=st.booleans() if mode is GenerationMode.POSITIVE else st.just(value=False),
            )
            def check(case: Any, is_there: bool) -> None:
                if is_there:
                    case.path_parameters, case.query, case.body = (
                        things.named(part, ids) for part in (case.path_parameters, case.query, case.body)
                    )
                answer = case.call(base_url=url, session=session, headers=apis.headers(service), timeout=120)
                case.validate_response(answer, checks=CHECKS, headers=apis.headers(service))

            try:
                check()
            except Unsatisfiable:  # nothing that could be wrong
                assert mode is GenerationMode.NEGATIVE, operation.label
            except (Exception, ExceptionGroup) as error:  # noqa: BLE001 (each operation is tried, then all are named)
                failures.append(f"{operation.label} ({mode}): {error}")
    assert not failures, "\n\n".join(failures)
