"""Calls that end: a peer whose answer drips for ever is left at the deadline, which is not that of a caller who takes its time."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from services.sampling.client import OverdueError, VerificationClient
from services.sampling.service.verdicts import work_s
from shared.contracts.questions import QuestionKind
from shared.contracts.reverification import CheckLimit
from shared.contracts.verdicts import IdentifiedVerdict, Verdict, VerdictBatch, VerdictOutcome, VerdictRequest

VERDICT = IdentifiedVerdict(id="1", verdict=Verdict(outcome=VerdictOutcome.CORRECT, verifier="test@1"))


def verification(*, drips: bool) -> VerificationClient:
    """Two verdicts, and then for ever a line that does not end if it `drips`."""

    async def body() -> AsyncIterator[bytes]:
        yield f"{VERDICT.model_dump_json()}\n".encode() * 2
        while drips:
            await asyncio.sleep(0.01)
            yield b" "

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body()))
    return VerificationClient(httpx.AsyncClient(transport=transport, base_url="http://verification"))


async def test_a_stream_that_drips_ends_at_the_deadline():
    lines = verification(drips=True).verdicts(VerdictBatch(items=()), deadline_s=0.3)
    assert [await anext(lines), await anext(lines)] == [VERDICT] * 2
    with pytest.raises(OverdueError, match="verification: did not answer in time"):
        await anext(lines)


async def test_a_caller_that_takes_its_time_is_not_cancelled():
    async for _ in verification(drips=False).verdicts(VerdictBatch(items=()), deadline_s=0.1):
        await asyncio.sleep(0.15)


def test_the_time_of_a_batch_is_what_its_checks_may_take():
    limits = {
        QuestionKind.MATH: CheckLimit(deadline_s=5, at_once=2),
        QuestionKind.CODE: CheckLimit(deadline_s=60, at_once=4),
    }

    def asked(*kinds: QuestionKind) -> list[VerdictRequest]:
        return [VerdictRequest(id="1", kind=kind, reference="", response="") for kind in kinds]

    assert (
        work_s(asked(QuestionKind.MATH, QuestionKind.MATH, QuestionKind.CODE, QuestionKind.EXACT), limits)
        == 60 + 5 + 15
    )
    assert work_s(asked(QuestionKind.EXACT), limits) == 0
