"""HTTP out: the pool, generation and verification. What may pass by itself is a `TransientError`; the rest is named by the peer.

Invariant: every call ends within its deadline, however its answer drips, and an answer that is none is a `TransientError` too. A stream
that is not read to its end has to be closed (`aclosing`), or the peer works on for nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import httpx
from pydantic import ValidationError

from shared import arrow
from shared.arrow.hand_in import write
from shared.contracts.base import Contract
from shared.contracts.generation import PromptSamples, SampleRequest
from shared.contracts.orders import (
    AssignmentFailure,
    ClaimRequest,
    ClaimResult,
    GroupBatch,
    GroupBatchResult,
    LeaseExtension,
    LeaseRef,
)
from shared.contracts.reverification import NewVerdictsBatch, StoredResponsesRequest, StoredResponsesResult, Verifiers
from shared.contracts.verdicts import IdentifiedVerdict, VerdictBatch
from shared.contracts.verifications import AnswersRequest, AnswersResult
from shared.packed import pack_group_in
from shared.web import raise_problem

C = TypeVar("C", bound=Contract)
GENERATION_GRACE_S = 30.0
POOL_DEADLINE_S = 60.0
VERIFIERS_DEADLINE_S = 30.0
POOL, GENERATION, VERIFICATION = "pool", "generation", "verification"
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_JSON = {"Content-Type": "application/json"}


class TransientError(Exception):
    """A dependency that may answer later; `retry_after_s` when it said when, `overloaded` when it was only full."""

    def __init__(
        self, service: str, reason: str, *, retry_after_s: float | None = None, overloaded: bool = False
    ) -> None:
        super().__init__(f"{service}: {reason}")
        self.service = service
        self.retry_after_s = retry_after_s
        self.overloaded = overloaded


class OverdueError(TransientError):
    """A call that did not end within its deadline."""


class HeldLeases(Contract):
    """What the pool answers to a heartbeat."""

    held: tuple[LeaseRef, ...]


class PoolClient:
    """The pool's assignments and groups."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        """Lease assignments."""
        return await self._post("/v1/assignments/claim", request, ClaimResult)

    async def heartbeat(self, extension: LeaseExtension) -> HeldLeases:
        """Extend leases; the answer lists those that are still held."""
        return await self._post("/v1/assignments/heartbeat", extension, HeldLeases)

    async def fail(self, failure: AssignmentFailure) -> None:
        """Give a lease back with a reason."""
        await _post(POOL, self._client, "/v1/assignments/fail", failure, POOL_DEADLINE_S)

    async def hand_in(self, batch: GroupBatch) -> GroupBatchResult:
        """Hand finished groups in, as Arrow; a repeated group does no harm."""
        body = bytes(write([pack_group_in(group) for group in batch.groups]))
        answer = await _send(POOL, self._client, "POST", "/v1/groups", body, arrow.MEDIA_TYPE, POOL_DEADLINE_S)
        return _read(POOL, GroupBatchResult, answer)

    async def stored_responses(self, request: StoredResponsesRequest) -> StoredResponsesResult:
        """The texts that assignments of a re-verification judge."""
        return await self._post("/v1/reverifications/responses", request, StoredResponsesResult)

    async def hand_in_verdicts(self, batch: NewVerdictsBatch) -> GroupBatchResult:
        """Hand new verdicts in; repeating it does no harm."""
        return await self._post("/v1/reverifications/verdicts", batch, GroupBatchResult)

    async def answers(self, request: AnswersRequest) -> AnswersResult:
        """The answers that assignments for verifications check."""
        return await self._post("/v1/verifications/answers", request, AnswersResult)

    async def _post(self, path: str, body: Contract, answer: type[C]) -> C:
        return _read(POOL, answer, await _post(POOL, self._client, path, body, POOL_DEADLINE_S))


class VerificationClient:
    """Verdicts."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def verifiers(self) -> Verifiers:
        """What judges each kind, and how long that may take."""
        answer = await _send(VERIFICATION, self._client, "GET", "/v1/verifiers", b"", None, VERIFIERS_DEADLINE_S)
        return _read(VERIFICATION, Verifiers, answer)

    async def verdicts(self, batch: VerdictBatch, deadline_s: float) -> AsyncGenerator[IdentifiedVerdict, None]:
        """Verdicts as they come. May end early: the caller asks again for what is missing."""
        headers = _JSON | {"Accept": "application/x-ndjson"}
        async with aclosing(_stream(VERIFICATION, self._client, "/v1/verdicts", batch, headers, deadline_s)) as lines:
            async for line in lines:
                yield _read(VERIFICATION, IdentifiedVerdict, line)


class GenerationClient:
    """Samples."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def samples(self, request: SampleRequest) -> AsyncGenerator[PromptSamples, None]:
        """The prompts' samples, as they finish. May end early: the caller asks again for what is missing."""
        deadline_s = request.deadline_s + GENERATION_GRACE_S
        async with aclosing(_stream(GENERATION, self._client, "/v1/samples", request, _JSON, deadline_s)) as lines:
            async for line in lines:
                yield _read(GENERATION, PromptSamples, line)


async def _stream(
    service: str, client: httpx.AsyncClient, path: str, body: Contract, headers: dict[str, str], deadline_s: float
) -> AsyncGenerator[bytes, None]:
    """The lines of an NDJSON answer. Raises: TransientError; OverdueError where it has not ended after `deadline_s`; the peer's."""
    ends_at = asyncio.get_running_loop().time() + deadline_s
    request = client.build_request(
        "POST", path, content=body.model_dump_json(), headers=headers, timeout=max(deadline_s, 0.0)
    )
    async with _answering(service, ends_at):
        response = await client.send(request, stream=True)
    try:
        if not response.is_success:
            async with _answering(service, ends_at):
                await response.aread()
            _raise_failure(service, response)
        lines = _lines(response)
        while True:
            async with _answering(service, ends_at):  # not while the caller has the line: the deadline is the peer's
                line = await anext(lines, None)
            if line is None:
                return
            yield line
    finally:
        await response.aclose()


@asynccontextmanager
async def _answering(service: str, ends_at: float) -> AsyncIterator[None]:
    """Raises: OverdueError at `ends_at` of the loop's clock; TransientError where the peer cannot be reached or breaks off."""
    try:
        async with asyncio.timeout_at(ends_at):
            yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise OverdueError(service, "did not answer in time") from error
    except httpx.RequestError as error:
        raise TransientError(service, type(error).__name__) from error


def _read(service: str, answer: type[C], content: bytes) -> C:
    """Raises: TransientError where it is no such answer."""
    try:
        return answer.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        reason = f"answered what is no {answer.__name__} ({field}: {first['msg']})"
        raise TransientError(service, reason) from error


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Non-empty NDJSON lines, undecoded; a line that the stream cut off is left out."""
    rest = bytearray()
    async for piece in response.aiter_bytes():
        rest += piece
        if b"\n" in piece:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in filter(None, lines):
                yield line


async def _post(service: str, client: httpx.AsyncClient, path: str, body: Contract, deadline_s: float) -> bytes:
    return await _send(service, client, "POST", path, body.model_dump_json().encode(), "application/json", deadline_s)


async def _send(
    service: str,
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: bytes,
    media_type: str | None,
    deadline_s: float,
) -> bytes:
    headers = {"Content-Type": media_type} if media_type else {}
    async with _answering(service, asyncio.get_running_loop().time() + deadline_s):
        response = await client.request(method, path, content=body, headers=headers, timeout=deadline_s)
    _raise_failure(service, response)
    return response.content


def _raise_failure(service: str, response: httpx.Response) -> None:
    """TransientError for 429 and 5xx, the peer's HeadwaterError for any other failure."""
    if response.status_code == _TOO_MANY_REQUESTS:
        raise TransientError(service, "full", retry_after_s=_retry_after_s(response), overloaded=True)
    if response.status_code >= _SERVER_ERROR:
        raise TransientError(service, f"answered {response.status_code}", retry_after_s=_retry_after_s(response))
    raise_problem(response)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header; a date, which our services never send, is not read."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
