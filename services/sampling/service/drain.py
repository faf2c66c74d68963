"""One drain: claim assignments, sample, verify, hand groups in, until the pool gives nothing more.

claim → (queue) → one stream of samples a chunk → sampled → batches of verdicts → verified → batches of groups → pool.
Invariants: an assignment is in flight from its claim until its group is taken by the pool or its lease was given back, and its
lease is extended all that time; whatever ends a drain (SIGTERM, kill -9, a dependency that stays away) loses nothing, since
what was in flight is leased again when the lease ends.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.sampling.client import (
    GENERATION,
    GenerationClient,
    PoolClient,
    TransientError,
    VerificationClient,
)
from services.sampling.service import groups, reverify, verifications
from services.sampling.service.batching import next_batch
from services.sampling.service.claims import Claims
from services.sampling.service.groups import Sampled
from services.sampling.service.handing_in import handed_in
from services.sampling.service.leases import Leases
from services.sampling.service.patience import Patience
from services.sampling.service.verdicts import TIMEOUT, TIMEOUT_MESSAGE, Verdicts
from services.sampling.service.window import Window
from services.sampling.settings import SamplingSettings
from shared.contracts.orders import (
    Assignment,
    GroupBatch,
    GroupBatchResult,
    GroupIn,
    GroupReceipt,
    GroupStatus,
    OrderPurpose,
)
from shared.errors import HeadwaterError

log = logging.getLogger(__name__)
RESPONSES_PER_VERDICT_BATCH = 64
VERDICT_BATCHES_AT_ONCE = 4
VERDICT_LINGER_S = 0.03
GROUP_BATCH_BYTES = 4 << 20
STOP_POLL_S = 0.2
STOPPED = "stopped"
GROUP_REFUSED = "group-refused"


class StoppedError(Exception):
    """The worker is asked to end."""


@dataclass
class DrainReport:
    """What a drain did: groups by receipt, given-back assignments by reason, and why it ended."""

    groups: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    abandoned: int = 0
    ended: str = "nothing to do"


class Drain:
    """One run over the pool's assignments; used once. `stopping` says that the worker is asked to end."""

    def __init__(
        self,
        pool: PoolClient,
        generation: GenerationClient,
        verification: VerificationClient,
        settings: SamplingSettings,
        worker: str,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._generation = generation
        self._settings = settings
        self._worker = worker
        self._stopping = stopping
        self._window = Window(settings.answers_in_flight)
        self._sampled: asyncio.Queue[Sampled] = asyncio.Queue()
        self._verified: asyncio.Queue[GroupIn] = asyncio.Queue()
        self._verdict_slots = asyncio.Semaphore(VERDICT_BATCHES_AT_ONCE)
        self.report = DrainReport()
        self._verdicts = Verdicts(verification, settings.verdict_grace_s, self._patience)
        self._claims = Claims(pool, worker, settings.lease_s, self._patience)
        self._leases = Leases(pool, settings, self.report.failed)

    async def run(self) -> DrainReport:
        """Work until the pool gives nothing more, the worker stops, or a dependency stays away too long."""
        try:
            async with asyncio.TaskGroup() as tasks:
                stages = [
                    tasks.create_task(stage)
                    for stage in (self._leases.keep(), self._verify(tasks), self._hand_in(), self._watch_stop())
                ]
                await self._claim_all(tasks)
                for stage in stages:
                    stage.cancel()
        except* StoppedError:
            self.report.ended = STOPPED
        except* (TransientError, HeadwaterError) as failures:
            self.report.ended = "; ".join(sorted({str(failure) for failure in failures.exceptions}))
            log.warning("the drain ends: %s; its %d leases are let go", self.report.ended, len(self._leases))
        self._leases.take_off(await self._claims.last())
        self.report.abandoned = len(self._leases)
        await self._leases.release(f"{self.report.ended} ({self._worker})")
        return self.report

    async def _claim_all(self, tasks: asyncio.TaskGroup) -> None:
        """Keep the window full. Ends when nothing is in flight and the pool stays empty for `quiet_polls`."""
        quiet_polls = 0
        while True:
            free = self._window.questions(self._leases.answers)
            if self._stopping() or not free:
                await self._leases.change()
                continue
            claim = await self._claims.claim(free)
            fresh = self._leases.take_off(claim.assignments)
            for assignment in fresh[:1]:
                self._window.claimed(assignment.k, assignment.sampling.max_tokens)
            for chunk in groups.chunks(fresh):
                tasks.create_task(self._work_on(chunk))
            if fresh:
                quiet_polls = 0
                continue
            if not self._leases:
                if not claim.open_orders or quiet_polls >= self._settings.quiet_polls:
                    return
                quiet_polls += 1
            await self._leases.change()

    async def _work_on(self, chunk: Sequence[Assignment]) -> None:
        match chunk[0].purpose:
            case OrderPurpose.REVERIFY:
                await self._reverify(chunk)
            case OrderPurpose.VERIFY:
                await self._write_verifications(chunk)
            case _:
                await self._sample(chunk)

    async def _sample(self, chunk: Sequence[Assignment]) -> None:
        """Ask for the chunk's samples, and again for those that a broken stream left out."""
        missing = {str(assignment.id): assignment for assignment in chunk}
        patience = self._patience()
        while missing:
            try:
                await self._sample_once(missing, patience)
            except TransientError as failure:
                if failure.service != GENERATION:  # the pool's, which was told of a flaw
                    raise
                if failure.overloaded:
                    self._window.overloaded()
                await patience.wait(failure)
            except HeadwaterError as refusal:
                blameless = groups.is_the_policys(refusal.code)
                await self._leases.fail(
                    missing.values(), refusal.code, refusal.message, counts_as_attempt=not blameless
                )
                return

    async def _sample_once(self, missing: dict[str, Assignment], patience: Patience) -> None:
        asked_at = time.monotonic()
        request = groups.sample_request(list(missing.values()))
        async with aclosing(self._generation.samples(request)) as lines:
            async for line in lines:
                if (assignment := missing.pop(line.id, None)) is not None:
                    patience.succeeded()
                    self._window.sampled(assignment.k, time.monotonic() - asked_at, assignment.deadline_s)
                    await self._receive(Sampled(assignment, line))
        if missing:
            raise TransientError(GENERATION, f"left out {len(missing)} prompts")

    async def _receive(self, sampled: Sampled) -> None:
        flaw = groups.flaw(sampled.assignment, sampled.samples)
        if flaw is None:
            self._sampled.put_nowait(sampled)
        else:
            await self._leases.fail(
                [sampled.assignment], flaw.reason, flaw.message, counts_as_attempt=flaw.is_the_questions
            )

    async def _verify(self, tasks: asyncio.TaskGroup) -> None:
        """Batches of sampled groups to verification, a few at once, so that a slow answer holds up only its own batch."""
        while True:
            await self._verdict_slots.acquire()
            batch = await next_batch(
                self._sampled,
                lambda sampled: len(sampled.samples.samples),
                RESPONSES_PER_VERDICT_BATCH,
                VERDICT_LINGER_S,
            )
            tasks.create_task(self._verify_batch(batch))

    async def _verify_batch(self, batch: Sequence[Sampled]) -> None:
        """Groups with a verdict missing for a reason that may pass are verified once more, then kept as they are."""
        try:
            unsettled = await self._settle(batch, is_final=False)
            if unsettled:
                await self._settle(unsettled, is_final=True)
        finally:
            self._verdict_slots.release()

    async def _settle(self, batch: Sequence[Sampled], *, is_final: bool) -> list[Sampled]:
        """Finish the groups whose verdicts are there; returns those to be judged once more, none when `is_final`."""
        requests = [groups.verdict_requests(sampled) for sampled in batch]
        items = [item for request in requests for item in request]
        try:
            verdicts = await self._verdicts.of(items)
        except HeadwaterError as refusal:
            await self._leases.fail([sampled.assignment for sampled in batch], refusal.code, refusal.message)
            return []
        unsettled: list[Sampled] = []
        late: list[Assignment] = []
        for sampled, request in zip(batch, requests, strict=True):
            own = [verdicts[item.id] for item in request if item.id in verdicts]
            if len(own) < len(request):
                late.append(sampled.assignment)
            elif groups.is_worth_retrying(own) and not is_final:
                unsettled.append(sampled)
            else:
                self._verified.put_nowait(groups.group(sampled, own))
        await self._leases.fail(late, TIMEOUT, TIMEOUT_MESSAGE, counts_as_attempt=False)
        return unsettled

    async def _hand_in(self) -> None:
        """Finished groups to the pool, in batches."""
        while True:
            linger_s = self._settings.linger_s
            await self._hand_in_batch(await next_batch(self._verified, groups.size_bytes, GROUP_BATCH_BYTES, linger_s))

    async def _hand_in_batch(self, batch: Sequence[GroupIn]) -> None:
        """A batch that the pool refuses as a whole is handed in one by one, and what it still refuses is given back."""
        try:
            receipts = await handed_in(batch, self._send, self._patience())
        except HeadwaterError as refusal:
            if len(batch) > 1:
                for finished in batch:
                    await self._hand_in_batch([finished])
            elif (assignment := self._leases.get(str(batch[0].assignment_id))) is not None:
                await self._leases.fail([assignment], refusal.code, refusal.message)
            return
        await self._take_receipts(receipts)

    async def _send(self, finished: Sequence[GroupIn]) -> GroupBatchResult:
        return await self._pool.hand_in(GroupBatch(groups=tuple(finished)))

    async def _reverify(self, held: Sequence[Assignment]) -> None:
        """Judge stored responses again."""
        try:
            async with self._verdict_slots:
                judged = await reverify.judge_again(self._pool, self._verdicts, held, self._patience)
        except HeadwaterError as refusal:
            await self._leases.fail(held, refusal.code, refusal.message)
            return
        await self._take_receipts(judged.receipts)
        await self._leases.fail(judged.late, TIMEOUT, TIMEOUT_MESSAGE, counts_as_attempt=False)

    async def _write_verifications(self, held: Sequence[Assignment]) -> None:
        """Verify stored answers."""
        try:
            written = await verifications.write(self._pool, self._generation, held, self._patience)
        except HeadwaterError as refusal:
            blameless = groups.is_the_policys(refusal.code)
            await self._leases.fail(held, refusal.code, refusal.message, counts_as_attempt=not blameless)
            return
        for group in written.groups:
            self._verified.put_nowait(group)
        for assignment, flaw in written.flaws:
            await self._leases.fail([assignment], flaw.reason, flaw.message, counts_as_attempt=flaw.is_the_questions)

    async def _take_receipts(self, receipts: Iterable[GroupReceipt]) -> None:
        """A group that the pool refused is not worth waiting for the end of its lease: it is sampled again."""
        for receipt in receipts:
            self.report.groups[receipt.status] += 1
            if receipt.message:
                log.info("group of assignment %s is %s: %s", receipt.assignment_id, receipt.status, receipt.message)
            assignment = self._leases.get(str(receipt.assignment_id))
            if receipt.status is GroupStatus.REFUSED and assignment is not None:
                await self._leases.fail([assignment], GROUP_REFUSED, receipt.message)
            self._leases.land(str(receipt.assignment_id))

    async def _watch_stop(self) -> None:
        """When the worker is asked to end: what is nearly done gets `stop_grace_s`, then the drain ends."""
        while not self._stopping():
            await asyncio.sleep(STOP_POLL_S)
        until = time.monotonic() + self._settings.stop_grace_s
        while self._leases and time.monotonic() < until:
            await self._leases.change()
        raise StoppedError

    def _patience(self) -> Patience:
        return Patience(self._settings.patience_s)
