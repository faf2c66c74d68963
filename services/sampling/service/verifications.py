"""Assignments for verifications (S²R stage 0): a policy checks the stored answers of a question, and is made to come to a verdict.

The verifier sees question and answer only. A check without a verdict sentence is asked for once more, with the check so far; one that has
none even then is unscored. Invariant: a verification is `correct` iff its verdict is the truth, and nothing is a verdict by default.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from string import Template
from uuid import UUID

from services.sampling.client import GENERATION, GenerationClient, PoolClient, TransientError
from services.sampling.service.groups import MAX_PROMPTS, Flaw, flaw_of_line
from services.sampling.service.patience import Patience, persist
from shared.contracts.generation import Prompt, PromptSamples, Sample, SampleRequest
from shared.contracts.orders import Assignment, GroupIn, ResponseIn
from shared.contracts.recipe import VerificationStyle
from shared.contracts.verdicts import (
    ClaimedVerdict,
    ScoredSegment,
    SegmentKind,
    UnscoredReason,
    Verdict,
    VerdictOutcome,
)
from shared.contracts.verifications import AnswersRequest, AssignmentAnswers, JudgedAnswer
from shared.trajectories import segments as text_format
from shared.trajectories.segments import VERDICT_SENTENCES

VERSION = 1
NOTHING_TO_VERIFY = "nothing-to-verify"
CONCLUSION_TOKENS = 64
_PROMPTS = Path(__file__).parent.parent / "prompts"
_SENTENCES = "\n".join(VERDICT_SENTENCES.values())


def _template(name: str) -> Template:
    return Template((_PROMPTS / f"{name}-{VERSION}.txt").read_text(encoding="utf-8"))


_CHECK = {style: _template(style) for style in VerificationStyle}
_CONCLUDE = _template("conclude")


@dataclass(frozen=True, slots=True)
class Written:
    """Assignments that became groups, and those that did not, with why."""

    groups: tuple[GroupIn, ...]
    flaws: tuple[tuple[Assignment, Flaw], ...]


@dataclass(frozen=True, slots=True)
class _Check:
    """One verification on its way: `text` so far, and the verdict that it came to."""

    sample: Sample
    text: str
    claimed: ClaimedVerdict | None


async def write(
    pool: PoolClient, generation: GenerationClient, held: Sequence[Assignment], patience: Callable[[], Patience]
) -> Written:
    """Verifications for assignments of one policy, k and sampling. Raises: HeadwaterError of a peer; TransientError."""
    ids = tuple(assignment.id for assignment in held)
    found = await persist(lambda: pool.answers(AnswersRequest(assignments=ids)), patience())
    wanted = {item.assignment_id: item for item in found.items}
    lines = await _sampled(generation, held[0], held[0].k, dict(_checks(held, wanted)), patience)
    flawed = {id_: flaw for id_, line in lines.items() if (flaw := flaw_of_line(line, held[0].k)) is not None}
    checks = {id_: [_read(sample) for sample in line.samples] for id_, line in lines.items() if id_ not in flawed}
    unconcluded = await _conclude(generation, held, wanted, checks, patience)
    made: list[GroupIn] = []
    flaws: list[tuple[Assignment, Flaw]] = []
    for assignment in held:
        item = wanted.get(assignment.id)
        if item is None or not item.answers:
            flaws.append((assignment, Flaw(NOTHING_TO_VERIFY, "there is no judged answer to verify")))
            continue
        places = [f"{assignment.id}/{place}" for place in range(len(item.answers))]
        wrong = next((one for id_ in places if (one := flawed.get(id_) or unconcluded.get(id_)) is not None), None)
        if wrong is not None:
            flaws.append((assignment, wrong))
        else:
            made.append(_group(assignment, item, [checks[id_] for id_ in places]))
    return Written(tuple(made), tuple(flaws))


def _checks(held: Sequence[Assignment], wanted: Mapping[UUID, AssignmentAnswers]) -> Iterator[tuple[str, str]]:
    """(id, text) of every prompt."""
    for assignment in held:
        if (item := wanted.get(assignment.id)) is not None:
            for place, answer in enumerate(item.answers):
                text = _CHECK[item.style].substitute(
                    question=assignment.question.text, answer=answer.answer, sentences=_SENTENCES
                )
                yield f"{assignment.id}/{place}", text


async def _sampled(
    generation: GenerationClient, of: Assignment, n: int, texts: Mapping[str, str], patience: Callable[[], Patience]
) -> dict[str, PromptSamples]:
    """A line for each prompt; those that a broken stream left out are asked for again."""
    lines: dict[str, PromptSamples] = {}
    waiting = patience()

    async def ask() -> None:
        missing = [Prompt(id=id_, text=text) for id_, text in texts.items() if id_ not in lines]
        for first in range(0, len(missing), MAX_PROMPTS):
            request = SampleRequest(
                policy_id=of.policy_id,
                prompts=tuple(missing[first : first + MAX_PROMPTS]),
                n=n,
                sampling=of.sampling,
                deadline_s=of.deadline_s,
            )
            async with aclosing(generation.samples(request)) as answers:
                async for line in answers:
                    if line.id in texts:
                        lines[line.id] = line
                        waiting.succeeded()
        if len(lines) < len(texts):
            raise TransientError(GENERATION, f"left out {len(texts) - len(lines)} prompts")

    if texts:
        await persist(ask, waiting)
    return lines


async def _conclude(
    generation: GenerationClient,
    held: Sequence[Assignment],
    wanted: Mapping[UUID, AssignmentAnswers],
    checks: dict[str, list[_Check]],
    patience: Callable[[], Patience],
) -> dict[str, Flaw]:
    """Make the checks that came to no verdict come to one; returns what went wrong with it, by the check's prompt."""
    texts: dict[str, str] = {}
    for assignment in held:
        item = wanted.get(assignment.id)
        for place, answer in enumerate(item.answers if item else ()):
            for number, check in enumerate(checks.get(f"{assignment.id}/{place}", ())):
                if check.claimed is None:
                    texts[f"{assignment.id}/{place}/{number}"] = _CONCLUDE.substitute(
                        question=assignment.question.text,
                        answer=answer.answer,
                        working=check.text,
                        sentences=_SENTENCES,
                    )
    short = held[0].model_copy(
        update={"sampling": held[0].sampling.model_copy(update={"temperature": 0.0, "max_tokens": CONCLUSION_TOKENS})}
    )
    flaws: dict[str, Flaw] = {}
    for id_, line in (await _sampled(generation, short, 1, texts, patience)).items():
        prompt_id, _, at = id_.rpartition("/")
        if (flaw := flaw_of_line(line, 1)) is not None:
            flaws[prompt_id] = flaw
            continue
        open_ = checks[prompt_id][int(at)]
        claimed = _read(line.samples[0]).claimed
        if claimed is not None:
            text = f"{open_.text.rstrip()}\n{VERDICT_SENTENCES[text_format.ClaimedVerdict(claimed.value)]}"
            checks[prompt_id][int(at)] = _Check(open_.sample, text, claimed)
    return flaws


def _read(sample: Sample) -> _Check:
    """A check up to its last verdict sentence; all of it when there is none."""
    found = [
        (place + len(sentence), ClaimedVerdict(verdict.value))
        for verdict, sentence in VERDICT_SENTENCES.items()
        if (place := sample.text.rfind(sentence)) >= 0
    ]
    if not found:
        return _Check(sample, sample.text, None)
    end, verdict = max(found, key=lambda pair: pair[0])
    return _Check(sample, sample.text[:end], verdict)


def _group(assignment: Assignment, item: AssignmentAnswers, checks: Sequence[Sequence[_Check]]) -> GroupIn:
    """The verifications of all answers, in the order of the answers."""
    responses = tuple(
        _response(check, answer, f"{item.style}@{VERSION}")
        for answer, own in zip(item.answers, checks, strict=True)
        for check in own
    )
    return GroupIn(
        assignment_id=assignment.id,
        lease_token=assignment.lease_token,
        policy_id=assignment.policy_id,
        responses=responses,
    )


def _response(check: _Check, answer: JudgedAnswer, prompt: str) -> ResponseIn:
    """One verification; its tokens only where the text is the engine's own to the end."""
    outcome, reward = VerdictOutcome.UNSCORED, None
    if check.claimed is not None:
        truth = ClaimedVerdict.CORRECT if answer.correct else ClaimedVerdict.INCORRECT
        outcome = VerdictOutcome.CORRECT if check.claimed is truth else VerdictOutcome.INCORRECT
        if check.claimed is not ClaimedVerdict.UNVERIFIABLE:
            reward = 1.0 if outcome is VerdictOutcome.CORRECT else -1.0
    segment = ScoredSegment(kind=SegmentKind.VERIFY, start=0, end=len(check.text), claimed=check.claimed, reward=reward)
    verdict = Verdict(
        outcome=outcome,
        unscored_reason=None if check.claimed else UnscoredReason.RESPONSE_UNPARSEABLE,
        answer=answer.answer,
        segments=(segment,),
        verifier=prompt,
    )
    whole = check.text == check.sample.text
    return ResponseIn(
        text=check.text,
        finish_reason=check.sample.finish_reason,
        token_ids=check.sample.token_ids if whole else "",
        logprobs=check.sample.logprobs if whole else "",
        token_ends=check.sample.token_ends if whole else "",
        verdict=verdict,
    )
