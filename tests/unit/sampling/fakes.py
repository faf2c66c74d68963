"""Pool, generation and verification as small apps in memory that keep to the contracts, and break where a test tells them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI, Request, Response

from services.sampling.client import GenerationClient, HeldLeases, PoolClient, VerificationClient
from services.sampling.service.drain import Drain, DrainReport
from services.sampling.settings import SamplingSettings
from services.verification.cache import Cache
from services.verification.kinds.judgement import CORRECT, Check, Judgement
from services.verification.service import Verifier
from shared.arrow import hand_in
from shared.arrow.stream import StreamReader
from shared.contracts.base import pack_float32, pack_int32
from shared.contracts.generation import FinishReason, PromptSamples, Sample, SampleRequest, SamplingParameters
from shared.contracts.orders import (
    Assignment,
    AssignmentFailure,
    ClaimRequest,
    ClaimResult,
    GroupBatchResult,
    GroupReceipt,
    GroupStatus,
    LeaseExtension,
    OrderPurpose,
)
from shared.contracts.questions import Question, QuestionKind, QuestionState, Split
from shared.contracts.reverification import CheckLimit, Verifiers
from shared.contracts.verdicts import VerdictBatch
from shared.contracts.verifications import AnswersRequest, AnswersResult, AssignmentAnswers
from shared.packed import PackedGroupIn

POLICY = uuid4()
SETTINGS = SamplingSettings(poll_interval_s=0.01, quiet_polls=2, linger_s=0.01, patience_s=20, stop_grace_s=0)
LEASE_END = datetime(2030, 1, 1, tzinfo=UTC)


class FakePool:
    """Questions `n + 1 = ?`; leases end when `now` says so."""

    def __init__(self, questions: int, k: int = 4, kind: QuestionKind = QuestionKind.MATH) -> None:
        self.now = time.monotonic
        self.waiting = [self._assignment(number, k, kind) for number in range(questions)]
        self.leases: dict[UUID, tuple[UUID, float, Assignment]] = {}
        self.groups: dict[UUID, PackedGroupIn] = {}
        self.receipts: Counter[GroupStatus] = Counter()
        self.failures: list[AssignmentFailure] = []
        self.claims: list[int] = []
        self.heartbeats = 0
        self.refuse_batches_over: int | None = None
        self.refused: set[str] = set()
        self.answers: dict[UUID, AssignmentAnswers] = {}
        self.down = 0
        self.nonsense = 0
        self.receipts_lost = 0
        self.claims_take_s = 0.0
        self.total = questions

    @staticmethod
    def _assignment(number: int, k: int, kind: QuestionKind) -> Assignment:
        question = Question(
            id=uuid4(),
            campaign_id=uuid4(),
            text=str(number),
            answer=str(number + 1),
            solution=f"\\boxed{{{number + 1}}}",
            kind=kind,
            split=Split.TRAIN,
            domain="text",
            state=QuestionState.CANDIDATE,
            tiny=False,
        )
        return Assignment(
            id=uuid4(),
            order_id=uuid4(),
            purpose=OrderPurpose.PROBE,
            policy_id=POLICY,
            policy_version=0,
            k=k,
            sampling=SamplingParameters(),
            deadline_s=60,
            question=question,
            lease_token=uuid4(),
            lease_expires_at=LEASE_END,
            attempt=1,
        )

    def app(self) -> FastAPI:
        app = FastAPI()
        app.middleware("http")(self._outage)
        app.post("/v1/assignments/claim")(self._claim)
        app.post("/v1/assignments/heartbeat")(self._heartbeat)
        app.post("/v1/assignments/fail")(self._fail)
        app.post("/v1/groups")(self._groups)
        app.post("/v1/verifications/answers")(self._answers)
        return app

    async def _outage(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if self.down:
            self.down -= 1
            return Response(status_code=503)
        return await call_next(request)

    async def _claim(self, request: ClaimRequest) -> ClaimResult:
        self.claims.append(request.limit)
        for assignment_id, (_, ends_at, assignment) in list(self.leases.items()):
            if ends_at <= self.now():
                del self.leases[assignment_id]
                self.waiting.append(assignment)
        taken, self.waiting = self.waiting[: request.limit], self.waiting[request.limit :]
        leased = [item.model_copy(update={"lease_token": uuid4()}) for item in taken]
        for item in leased:
            self.leases[item.id] = (item.lease_token, self.now() + request.lease_s, item)
        await asyncio.sleep(self.claims_take_s)
        return ClaimResult(assignments=tuple(leased), open_orders=int(len(self.groups) < self.total))

    async def _heartbeat(self, request: LeaseExtension) -> HeldLeases:
        self.heartbeats += 1
        held = [lease for lease in request.leases if self._holds(lease.assignment_id, lease.lease_token)]
        for lease in held:
            token, _, assignment = self.leases[lease.assignment_id]
            self.leases[lease.assignment_id] = (token, self.now() + request.lease_s, assignment)
        return HeldLeases(held=tuple(held))

    async def _fail(self, request: AssignmentFailure) -> Response:
        if not self._holds(request.assignment_id, request.lease_token):
            return Response(status_code=409)
        self.failures.append(request)
        _, _, assignment = self.leases.pop(request.assignment_id)
        if not request.counts_as_attempt:
            self.waiting.append(assignment)
        return Response(content="{}")

    async def _groups(self, request: Request) -> Response:
        reader = StreamReader(hand_in.SCHEMA)
        groups = [group for batch in reader.feed(await request.body()) for group in hand_in.read(batch)]
        reader.close()
        if self.refuse_batches_over is not None and len(groups) > self.refuse_batches_over:
            return Response(status_code=413)
        receipts = tuple(self._store(group) for group in groups)
        if self.nonsense:
            self.nonsense -= 1
            return Response("[nonsense]")
        lost, self.receipts_lost = self.receipts_lost, 0
        return Response(GroupBatchResult(receipts=receipts[lost:]).model_dump_json())

    async def _answers(self, request: AnswersRequest) -> AnswersResult:
        return AnswersResult(items=tuple(self.answers[one] for one in request.assignments if one in self.answers))

    def _holds(self, assignment_id: UUID, token: UUID) -> bool:
        return assignment_id in self.leases and self.leases[assignment_id][0] == token

    def _store(self, group: PackedGroupIn) -> GroupReceipt:
        if group.responses[0].text in self.refused:
            refusal = GroupStatus.REFUSED
            return GroupReceipt(assignment_id=group.assignment_id, status=refusal, message="It is refused.")
        status = GroupStatus.STORED if self._holds(group.assignment_id, group.lease_token) else GroupStatus.LATE
        if group.assignment_id in self.groups:
            status = GroupStatus.DUPLICATE
        else:
            self.groups[group.assignment_id] = group
            self.leases.pop(group.assignment_id, None)
            self.waiting = [item for item in self.waiting if item.id != group.assignment_id]
        self.receipts[status] += 1
        return GroupReceipt(assignment_id=group.assignment_id, status=status)


def right_samples(request: SampleRequest, text: str) -> tuple[Sample, ...]:
    """n samples of the right answer, with tokens."""
    answer = f"\\boxed{{{int(text) + 1}}}"
    tokens = len(answer)
    sample = Sample(
        text=answer,
        finish_reason=FinishReason.STOP,
        token_ids=pack_int32(range(tokens)),
        logprobs=pack_float32([-0.5] * tokens),
        token_ends=pack_int32(range(1, tokens + 1)),
    )
    return (sample,) * request.n


class AllButTheFirst:
    """Holds every question but the first `count` that are asked: however fast those land, the others are left."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._answered: set[str] = set()

    def __call__(self, text: str) -> bool:
        """Whether to hold."""
        if len(self._answered) < self.count:
            self._answered.add(text)
        return text not in self._answered


class FakeGeneration:
    """Answers rightly; `line` may answer a prompt otherwise, `refusals` are answered first, `hold` stops prompts."""

    def __init__(self) -> None:
        self.requests: list[SampleRequest] = []
        self.refusals: list[httpx.Response] = []
        self.cut_after: list[int] = []
        self.hold: Callable[[str], bool] = lambda text: False
        self.line: Callable[[SampleRequest, str, str], PromptSamples | None] = lambda request, id_, text: None

    async def answer(self, http_request: httpx.Request) -> httpx.Response:
        """One request; the body streams."""
        request = SampleRequest.model_validate_json(http_request.content)
        self.requests.append(request)
        if self.refusals:
            return self.refusals.pop(0)
        cut = self.cut_after.pop(0) if self.cut_after else len(request.prompts)
        return httpx.Response(200, content=self._lines(request, cut))

    async def _lines(self, request: SampleRequest, cut: int) -> AsyncIterator[bytes]:
        waiting = list(request.prompts[:cut])
        while waiting:
            held = [prompt for prompt in waiting if self.hold(prompt.text)]
            for prompt in waiting:
                if prompt not in held:
                    line = self.line(request, prompt.id, prompt.text)
                    if line is None:
                        line = PromptSamples(id=prompt.id, samples=right_samples(request, prompt.text))
                    yield line.model_dump_json().encode() + b"\n"
            waiting = held
            if held:
                await asyncio.sleep(0.005)


class FakeJudges:
    """Answers `judgements` first, then correct."""

    def __init__(self) -> None:
        self.judgements: list[Judgement] = []
        self.asked = 0
        self.hang: Callable[[str], bool] = lambda answer: False

    async def judge(self, check: Check) -> Judgement:
        self.asked += 1
        while self.hang(check.answer):
            await asyncio.sleep(0.01)
        return self.judgements.pop(0) if self.judgements else CORRECT


class FakeVerification:
    """The real verdicts, with fake judges."""

    def __init__(self) -> None:
        self.judges = FakeJudges()
        self.verifier = Verifier({QuestionKind.MATH: self.judges}, Cache(1000))
        self.batches: list[int] = []
        self.down = 0
        self.breaks = 0
        self.nonsense = 0
        self.pace_s = 0.0
        self.limit = CheckLimit(deadline_s=5, at_once=2)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """One request; verdicts stream."""
        if request.url.path == "/v1/verifiers":
            limits = Verifiers(verifiers={}, limits={QuestionKind.MATH: self.limit})
            return httpx.Response(200, content=limits.model_dump_json())
        if self.down:
            self.down -= 1
            return httpx.Response(503)
        batch = VerdictBatch.model_validate_json(request.content)
        self.batches.append(len(batch.items))
        return httpx.Response(200, content=self._lines(batch))

    async def _lines(self, batch: VerdictBatch) -> AsyncIterator[bytes]:
        if self.nonsense:
            self.nonsense -= 1
            yield b'{"id": "other", "verdict": null}\n'
        async for _, item in self.verifier.as_finished(batch):
            if self.breaks:
                self.breaks -= 1
                return
            await asyncio.sleep(self.pace_s)
            yield f"{item.model_dump_json()}\n".encode()


class World:
    """The three services, and drains that work on them."""

    def __init__(self, questions: int, k: int = 4, kind: QuestionKind = QuestionKind.MATH) -> None:
        self.pool = FakePool(questions, k, kind)
        self.generation = FakeGeneration()
        self.verification = FakeVerification()
        self.stopping = False

    @asynccontextmanager
    async def drain(self, settings: SamplingSettings = SETTINGS) -> AsyncIterator[Drain]:
        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(self.pool.app()), base_url="http://pool") as pool,
            httpx.AsyncClient(
                transport=httpx.MockTransport(self.generation.answer), base_url="http://gen"
            ) as generation,
            httpx.AsyncClient(
                transport=httpx.MockTransport(self.verification.answer), base_url="http://v"
            ) as verification,
        ):
            clients = PoolClient(pool), GenerationClient(generation), VerificationClient(verification)
            yield Drain(*clients, settings, "worker", lambda: self.stopping)

    async def run(self, settings: SamplingSettings = SETTINGS) -> DrainReport:
        """One drain, to its end."""
        async with self.drain(settings) as drain:
            return await drain.run()
