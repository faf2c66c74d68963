"""Requests that somebody wrote by hand to do harm: each is refused with the one error body, and the services go on."""

import json
import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import httpx
import pytest

from shared.bodies import MAX_BODY_BYTES
from shared.contracts.problems import ProblemBody
from shared.serve import MAX_HEAD_BYTES
from tests.integration.openapi.conftest import SERVICES, Apis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
# Each operation gets a share of the values, each value a share of the operations; what the gateway passes on, its services try, too.
SHARES = dict.fromkeys(SERVICES, 4) | {"gateway": 12}
# Percent-encoded here, so that they travel as they are.
VALUES = (
    "%00",
    "a%00b",
    "%ff%fe",
    "%ed%a0%80",  # a lone surrogate
    "%e2%80%ae%f0%9f%92%a9",
    quote("Z̵͑̚ạ̴̛̈́l̸̼͝g̷̦̾o̶͎͋"),
    "9" * 400,
    "-1",
    "-9223372036854775809",
    "1e999",
    "NaN",
    "00000000-0000-0000-0000-00000000000g",
    quote("' OR 1=1 --"),
    quote("{{7*7}}${jndi:ldap://x}"),
    quote("\r\nX-Injected: 1"),
    "x" * 1000,
)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """Each service in turn."""
    return str(request.param)


@pytest.fixture
def http(apis: Apis, service: str) -> Iterator[httpx.Client]:
    """A client of it."""
    headers = apis.headers(service)
    with httpx.Client(base_url=apis.urls[service], headers=headers, timeout=120, trust_env=False) as client:
        yield client
        assert client.get("/health/live").status_code == 200


def refused(answer: httpx.Response, *statuses: int) -> None:
    """It is a refusal in the one form."""
    asked = f"{answer.request.method} {answer.request.url}"[:300]
    assert 400 <= answer.status_code < 500, f"{asked}: {answer.status_code} {answer.text[:300]}"
    assert not statuses or answer.status_code in statuses, f"{asked}: {answer.status_code} {answer.text[:300]}"
    assert ProblemBody.model_validate_json(answer.content).error.message, asked


def operations(http: httpx.Client) -> list[tuple[str, str, list[str]]]:
    """Method, path and query parameters of every operation."""
    paths = http.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path, [item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"])
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def test_paths_and_parameters(http: httpx.Client, service: str):
    shares = SHARES[service]
    for number, (method, path, names) in enumerate(operations(http)):
        url = re.sub(r"\{\w+\}", "00000000-0000-0000-0000-000000000000", path)
        for value in VALUES[number % shares :: shares]:
            if "{" in path:
                refused(http.request(method, re.sub(r"\{\w+\}", value, path)))
            if names:
                answer = http.request(method, f"{url}?{'&'.join(f'{name}={value}' for name in names)}")
                refused(answer)
        for name in names:
            refused(http.request(method, f"{url}?{name}=1&{name}=2"), 422)
        refused(http.request("TRACE", url), 404, 405)


# Whatever a list is called, forty thousand wrong items of it are one error.
LISTS = (b"groups", b"leases", b"items", b"prompts", b"ids")
BODIES = (
    (b"", "application/json"),
    (b"{", "application/json"),
    (b"null", "application/json"),
    (b'"\\ud800"', "application/json"),
    (b'{"a": NaN, "b": Infinity}', "application/json"),
    (b"\xff\xfe{\x00", "application/json"),
    (b"[" * 200_000, "application/json"),
    (b'{"a":' * 50_000, "application/json"),
    (b'{"key": ' + b"9" * 10_000 + b"}", "application/json"),
    (json.dumps({"\0": "\0", "name": "a\0b"}).encode(), "application/json"),
    (b"{" + b'"a": 0, ' * 1001 + b'"b": 0}', "application/json"),
    (
        b"{" + b",".join(b'"%s": [%s]' % (name, b",".join([b"{}"] * 40_000)) for name in LISTS) + b"}",
        "application/json",
    ),
    (b'name = "x"\n' + b"a." * 50_000 + b"b = 1", "application/toml"),
    (b"<x/>", "application/xml"),
    (b"a=1", "application/x-www-form-urlencoded"),
    (b"{}", "text/plain"),
    (b"{}", "application/json; charset=utf-16"),
    (b"--x\r\n\r\nbroken", "multipart/form-data; boundary=x"),
    (b"{}", "multipart/form-data"),
    (b"{}", "\\/;;="),
)


def test_bodies(http: httpx.Client):
    """None is taken; of submissions, which are judged item by item, nothing is accepted."""
    writes = [(method, path) for method, path, _ in operations(http) if method in ("POST", "PUT")]
    for number, (method, path) in enumerate(writes):
        url = re.sub(r"\{\w+\}", "00000000-0000-0000-0000-000000000000", path)
        for body, kind in BODIES[number % 2 :: 2]:
            answer = http.request(method, url, content=body, headers={"Content-Type": kind})
            if path.endswith(("/cancel", "/resume", "/close", "/live")):
                refused(answer, 404)
            elif not answer.is_success:
                refused(answer)
            else:
                assert kind.startswith("application/json"), (path, body[:50], answer.text[:300])
                assert body == b"{}", (path, body[:50], answer.text[:300])


def test_a_body_that_is_too_large(http: httpx.Client):
    large = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    for method, path, _ in operations(http):
        if method in ("POST", "PUT") and not re.search("questions|groups|verdicts|samples|campaigns$", path):
            url = re.sub(r"\{\w+\}", "00000000-0000-0000-0000-000000000000", path)
            answer = http.request(method, url, content=large, headers={"Content-Type": "application/json"})
            refused(answer, 404, 413)  # what reads no body answers without it


@pytest.mark.parametrize("piece", [b"X: a\r\n" * 2000, b"a" * (1 << 14)], ids=["headers", "one header"])
def test_a_head_that_is_too_large(apis: Apis, http: httpx.Client, service: str, piece: bytes):
    """One that is a little too long is told so; one without end is not read."""
    address = urlsplit(apis.urls[service])
    head = b"GET / HTTP/1.1\r\nHost: x\r\nY: "
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head)
        time.sleep(0.05)
        connection.sendall((piece * 8)[: MAX_HEAD_BYTES + 1])
        answered = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    status, _, body = answered.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 431 ")
    assert ProblemBody.model_validate_json(body).error.code == "head_too_large"
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head)
        with pytest.raises(OSError, match=r"reset|pipe"):
            connection.sendall(piece * 2000)


def test_a_length_that_lies(apis: Apis, http: httpx.Client, service: str):
    """Less than was said is nobody's request; more than was said is the next one, and none."""
    address = urlsplit(apis.urls[service])
    paths = [path for method, path, _ in operations(http) if method == "POST" and "{" not in path]
    authorization = "".join(f"{name}: {value}\r\n" for name, value in apis.headers(service).items())
    for path in paths:
        for said, sent in ((1000, b'{"name": "cut'), (2, b"{}GARBAGE / HTTP/9\r\n\r\n"), (-5, b"{}")):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\n"
            with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
                connection.sendall(f"{head}Content-Length: {said}\r\n\r\n".encode() + sent)
                connection.shutdown(socket.SHUT_WR)
                answered = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answered)]
            assert all(400 <= status < 500 for status in statuses), (path, said, answered[:300])
