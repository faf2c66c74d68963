"""HTTP out: the pool, generation and verification. What may pass by itself is a `TransientError`; the rest is named by the peer."""

from collections.abc import AsyncIterator
from typing import TypeVar

import httpx

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
from shared.contracts.reverification import NewVerdictsBatch, StoredResponsesRequest, StoredResponsesResult
from shared.contracts.verdicts import IdentifiedVerdict, VerdictBatch
from shared.contracts.verifications import AnswersRequest, AnswersResult
from shared.packed import pack_group_in
from shared.web import raise_problem

C = TypeVar("C", bound=Contract)
GENERATION_GRACE_S = 30.0
# Longer than a check waits behind all that one sampler asks for at once: 256 responses, 16 at a time, half a minute each.
VERDICT_SILENCE_S = 600.0
POOL_DEADLINE_S = 60.0
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
        await _post("pool", self._client, "/v1/assignments/fail", failure, POOL_DEADLINE_S)

    async def hand_in(self, batch: GroupBatch) -> GroupBatchResult:
        """Hand finished groups in, as Arrow; a repeated group does no harm."""
        body = bytes(write([pack_group_in(group) for group in batch.groups]))
        answer = await _send("pool", self._client, "/v1/groups", body, arrow.MEDIA_TYPE, POOL_DEADLINE_S)
        return GroupBatchResult.model_validate_json(answer)

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
        return answer.model_validate_json(await _post("pool", self._client, path, body, POOL_DEADLINE_S))


class VerificationClient:
    """Verdicts."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def verdicts(self, batch: VerdictBatch) -> AsyncIterator[IdentifiedVerdict]:
        """Verdicts as they come. May end early: the caller asks again for what is missing."""
        headers = _JSON | {"Accept": "application/x-ndjson"}
        lines = _stream("verification", self._client, "/v1/verdicts", batch, headers, VERDICT_SILENCE_S)
        async for line in lines:
            yield IdentifiedVerdict.model_validate_json(line)


class GenerationClient:
    """Samples."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def samples(self, request: SampleRequest) -> AsyncIterator[PromptSamples]:
        """The prompts' samples, as they finish. May end early: the caller asks again for what is missing."""
        lines = _stream(
            "generation", self._client, "/v1/samples", request, _JSON, request.deadline_s + GENERATION_GRACE_S
        )
        async for line in lines:
            yield PromptSamples.model_validate_json(line)


async def _stream(
    service: str, client: httpx.AsyncClient, path: str, body: Contract, headers: dict[str, str], silence_s: float
) -> AsyncIterator[bytes]:
    """The lines of an NDJSON answer. Raises: TransientError, also after `silence_s` without a byte; the peer's HeadwaterError."""
    content = body.model_dump_json()
    try:
        async with client.stream("POST", path, content=content, headers=headers, timeout=silence_s) as response:
            if not response.is_success:
                await response.aread()
                _raise_failure(service, response)
            async for line in _lines(response):
                yield line
    except httpx.RequestError as error:
        raise TransientError(service, type(error).__name__) from error


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
    return await _send(service, client, path, body.model_dump_json().encode(), "application/json", deadline_s)


async def _send(
    service: str, client: httpx.AsyncClient, path: str, body: bytes, media_type: str, deadline_s: float
) -> bytes:
    try:
        headers = {"Content-Type": media_type}
        response = await client.post(path, content=body, headers=headers, timeout=deadline_s)
    except httpx.RequestError as error:
        raise TransientError(service, type(error).__name__) from error
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
