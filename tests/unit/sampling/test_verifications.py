"""Verifications by a policy: prompts, forced conclusions, truth, and what fails."""

from uuid import UUID

import httpx
import pytest

from shared.contracts.base import pack_float32, pack_int32
from shared.contracts.generation import FinishReason, PromptSamples, Sample, SampleRequest
from shared.contracts.orders import OrderPurpose
from shared.contracts.recipe import VerificationStyle
from shared.contracts.verdicts import ClaimedVerdict, UnscoredReason, VerdictOutcome
from shared.contracts.verifications import AssignmentAnswers, JudgedAnswer
from shared.packed import PackedGroupIn
from shared.trajectories import segments
from tests.unit.sampling.fakes import World

SENTENCE = {verdict.value: sentence for verdict, sentence in segments.VERDICT_SENTENCES.items()}
ANSWERS = (JudgedAnswer(answer="1", correct=True), JudgedAnswer(answer="7", correct=False))


def world(k: int = 1, answers: tuple[JudgedAnswer, ...] = ANSWERS) -> tuple[World, UUID]:
    """One question with a right and a wrong answer to verify."""
    made = World(questions=1, k=k)
    assignment = made.pool.waiting[0].model_copy(update={"purpose": OrderPurpose.VERIFY})
    made.pool.waiting = [assignment]
    made.pool.answers[assignment.id] = AssignmentAnswers(
        assignment_id=assignment.id, style=VerificationStyle.CONFIRMATIVE, answers=answers
    )
    return made, assignment.id


def sample(text: str) -> Sample:
    return Sample(
        text=text,
        finish_reason=FinishReason.STOP,
        token_ids=pack_int32(range(len(text))),
        logprobs=pack_float32([-0.5] * len(text)),
        token_ends=pack_int32(range(1, len(text) + 1)),
    )


def says(made: World, *, check: str, conclusion: str = "") -> list[str]:
    """Every check is answered alike, and every request for a conclusion; the prompts that were asked, in order."""
    seen: list[str] = []

    def line(request: SampleRequest, id_: str, text: str) -> PromptSamples | None:
        if text.isdigit():  # a question
            return None
        seen.append(text)
        answer = conclusion if "It was checked like this" in text else check
        return PromptSamples(id=id_, samples=(sample(answer),) * request.n)

    made.generation.line = line
    return seen


async def group(made: World, assignment_id: UUID) -> PackedGroupIn:
    report = await made.run()
    assert report.groups["stored"] == 1, report
    return made.pool.groups[assignment_id]


async def test_each_answer_is_checked_and_only_the_truth_is_correct():
    made, assignment_id = world(k=2)
    seen = says(made, check=f"It holds.\n{SENTENCE['correct']} Anything else?")
    responses = (await group(made, assignment_id)).responses
    assert [response.verdict.answer for response in responses] == ["1", "1", "7", "7"]
    outcomes = [response.verdict.outcome for response in responses]
    assert outcomes == [VerdictOutcome.CORRECT] * 2 + [VerdictOutcome.INCORRECT] * 2
    assert [response.verdict.segments[0].reward for response in responses] == [1.0, 1.0, -1.0, -1.0]
    assert {response.text for response in responses} == {f"It holds.\n{SENTENCE['correct']}"}  # cut at the verdict
    assert {response.verdict.verifier for response in responses} == {"confirmative@1"}
    assert {len(response.token_ids) for response in responses} == {0}  # the text is the engine's no more
    assert len(seen) == 2
    assert all("WITHOUT solving the question again" in text for text in seen)
    assert not any("It was checked" in text for text in seen)


async def test_a_check_without_a_verdict_is_made_to_conclude():
    made, assignment_id = world()
    seen = says(made, check="I added it up.", conclusion=f"  {SENTENCE['incorrect']}")
    responses = (await group(made, assignment_id)).responses
    assert [response.text for response in responses] == [f"I added it up.\n{SENTENCE['incorrect']}"] * 2
    assert [response.verdict.outcome for response in responses] == [VerdictOutcome.INCORRECT, VerdictOutcome.CORRECT]
    assert sum("I added it up." in text for text in seen) == 2
    conclusions = made.generation.requests[-1]
    assert (conclusions.n, conclusions.sampling.temperature, conclusions.sampling.max_tokens) == (1, 0.0, 64)


@pytest.mark.parametrize("conclusion", ["", "It is correct.", "therefore, the answer is correct."])
async def test_nothing_is_a_verdict_by_default(conclusion: str):
    made, assignment_id = world()
    says(made, check="Hm.", conclusion=conclusion)
    for response in (await group(made, assignment_id)).responses:
        assert response.verdict.outcome is VerdictOutcome.UNSCORED
        assert response.verdict.unscored_reason is UnscoredReason.RESPONSE_UNPARSEABLE
        assert response.verdict.segments[0].reward is None
        assert response.text == "Hm."
        assert len(response.token_ids) == 4 * len("Hm.")


async def test_unverifiable_is_never_the_truth():
    made, assignment_id = world()
    says(made, check=SENTENCE["unverifiable"])
    responses = (await group(made, assignment_id)).responses
    assert {response.verdict.outcome for response in responses} == {VerdictOutcome.INCORRECT}
    assert {response.verdict.segments[0].claimed for response in responses} == {ClaimedVerdict.UNVERIFIABLE}
    assert {response.verdict.segments[0].reward for response in responses} == {None}


async def test_a_full_engine_and_a_cut_stream_are_waited_out():
    made, assignment_id = world()
    says(made, check=SENTENCE["correct"])
    made.generation.refusals = [httpx.Response(429, headers={"Retry-After": "0"})]
    made.generation.cut_after = [1]
    assert len((await group(made, assignment_id)).responses) == 2


async def test_an_error_of_one_prompt_gives_the_assignment_back():
    made, assignment_id = world()
    made.generation.line = lambda request, id_, text: PromptSamples(
        id=id_, error="deadline", message="It took too long."
    )
    await made.run()
    assert [(one.assignment_id, one.reason, one.counts_as_attempt) for one in made.pool.failures] == [
        (assignment_id, "deadline", True)
    ]
    assert made.pool.groups == {}


async def test_too_few_verifications_are_no_group():
    made, assignment_id = world(k=2)
    made.generation.line = lambda request, id_, text: PromptSamples(id=id_, samples=(sample(SENTENCE["correct"]),))
    await made.run()
    assert [(one.assignment_id, one.reason) for one in made.pool.failures] == [(assignment_id, "incomplete-group")]
    assert made.pool.groups == {}


async def test_an_assignment_without_answers_is_given_back():
    made, assignment_id = world(answers=())
    await made.run()
    assert [one.reason for one in made.pool.failures] == ["nothing-to-verify"]
    assert assignment_id not in made.pool.groups


async def test_verifications_and_samples_side_by_side():
    made, _ = world()
    says(made, check=SENTENCE["correct"])
    other = World(questions=3)
    made.pool.waiting += other.pool.waiting
    made.pool.total = 4
    report = await made.run()
    assert report.groups["stored"] == 4
