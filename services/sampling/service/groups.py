"""From assignments to sample requests, and from samples and verdicts to groups. Pure functions.

Invariant: a group is complete or isn't made: exactly k samples, or 1..k solutions of a `reference` policy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.contracts.generation import FinishReason, Prompt, PromptSamples, SampleRequest
from shared.contracts.orders import Assignment, AssignmentFailure, GroupIn, ResponseIn
from shared.contracts.questions import QuestionKind
from shared.contracts.verdicts import UnscoredReason, Verdict, VerdictRequest

MAX_PROMPTS = 16
# Errors of generation that are the engine's, the policy's or an external server's, so they use up none of the question's attempts.
NOT_THE_QUESTIONS = frozenset({"engine-down", "weights-replaced", "policy-not-loadable", "external-unavailable"})
POLICY_REFUSALS = frozenset(
    {"policy_not_loadable", "architecture_mismatch", "damaged_weights", "incomplete_weights", "unsafe_weights"}
)
MAX_REASON_CHARACTERS = 100
MAX_MESSAGE_CHARACTERS = 2000
TRANSIENT_REASONS = frozenset(
    {
        UnscoredReason.TIMEOUT,
        UnscoredReason.MEMORY,
        UnscoredReason.VERIFIER_CRASHED,
        UnscoredReason.JUDGE_NONSENSE,
        UnscoredReason.ENGINE_DOWN,
    }
)


@dataclass(frozen=True, slots=True)
class Sampled:
    """An assignment with all its samples."""

    assignment: Assignment
    samples: PromptSamples


def chunks(assignments: Iterable[Assignment]) -> list[list[Assignment]]:
    """Assignments that are worked on together: of the same purpose, policy and parameters, at most `MAX_PROMPTS`."""
    alike: dict[str, list[list[Assignment]]] = {}
    for assignment in assignments:
        key = f"{assignment.purpose} {assignment.policy_id} {assignment.k} {assignment.deadline_s} {assignment.sampling.model_dump_json()}"
        lists = alike.setdefault(key, [[]])
        if len(lists[-1]) == MAX_PROMPTS:
            lists.append([])
        lists[-1].append(assignment)
    return [chunk for lists in alike.values() for chunk in lists]


def sample_request(chunk: Sequence[Assignment]) -> SampleRequest:
    """The request for one chunk; prompts are named by their assignment."""
    first = chunk[0]
    return SampleRequest(
        policy_id=first.policy_id,
        prompts=tuple(
            Prompt(id=str(item.id), text=item.question.text, reference_solution=item.question.solution)
            for item in chunk
        ),
        n=first.k,
        sampling=first.sampling,
        deadline_s=first.deadline_s,
    )


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a prompt's line makes no group; `is_the_questions` when neither the engine nor the policy is to blame."""

    reason: str
    message: str
    is_the_questions: bool = True


def flaw(assignment: Assignment, line: PromptSamples) -> Flaw | None:
    """What keeps a prompt's line from being a group, or None."""
    is_reference = bool(line.samples) and all(one.finish_reason is FinishReason.REFERENCE for one in line.samples)
    return flaw_of_line(line, min(len(line.samples), assignment.k) if is_reference else assignment.k)


def flaw_of_line(line: PromptSamples, wanted: int) -> Flaw | None:
    """The error that a prompt's line has in place of samples, or that it has not as many as were wanted, or None."""
    if line.error is not None:
        reason = line.error or "generation-error"
        return Flaw(reason, line.message, is_the_questions=reason not in NOT_THE_QUESTIONS)
    if len(line.samples) != wanted:
        return Flaw("incomplete-group", f"generation gave {len(line.samples)} of {wanted} samples")
    return None


def is_the_policys(refusal: str) -> bool:
    """Whether generation refused a whole request for the sake of its policy."""
    return refusal in POLICY_REFUSALS or refusal.startswith("artifact_")


def failure(assignment: Assignment, reason: str, message: str, *, counts_as_attempt: bool) -> AssignmentFailure:
    """How a lease is given back."""
    return AssignmentFailure(
        assignment_id=assignment.id,
        lease_token=assignment.lease_token,
        reason=reason[:MAX_REASON_CHARACTERS],
        message=message[:MAX_MESSAGE_CHARACTERS],
        counts_as_attempt=counts_as_attempt,
    )


def verdict_requests(sampled: Sampled) -> tuple[VerdictRequest, ...]:
    """One request a response."""
    samples = enumerate(sampled.samples.samples)
    return tuple(verdict_request(sampled.assignment, position, sample.text) for position, sample in samples)


def verdict_request(assignment: Assignment, position: int, response: str) -> VerdictRequest:
    """What verification is asked, named by assignment and position; the question's text goes with what a judge is to see."""
    question = assignment.question
    return VerdictRequest(
        id=f"{assignment.id}/{position}",
        kind=question.kind,
        reference=question.answer,
        response=response,
        question=question.text if question.kind is QuestionKind.RUBRIC else "",
    )


def is_worth_retrying(verdicts: Iterable[Verdict]) -> bool:
    """Whether some verdict is missing for a reason that may pass."""
    return any(verdict.unscored_reason in TRANSIENT_REASONS for verdict in verdicts)


def group(sampled: Sampled, verdicts: Sequence[Verdict]) -> GroupIn:
    """The finished group; `verdicts` are in the order of the samples."""
    return GroupIn(
        assignment_id=sampled.assignment.id,
        lease_token=sampled.assignment.lease_token,
        policy_id=sampled.assignment.policy_id,
        prompt_token_ids=sampled.samples.prompt_token_ids,
        responses=tuple(
            ResponseIn(
                text=sample.text,
                finish_reason=sample.finish_reason,
                token_ids=sample.token_ids,
                logprobs=sample.logprobs,
                token_ends=sample.token_ends,
                verdict=verdict,
            )
            for sample, verdict in zip(sampled.samples.samples, verdicts, strict=True)
        ),
    )


def size_bytes(finished: GroupIn) -> int:
    """About how much a group is on the wire."""
    return sum(len(r.text) + len(r.token_ids) + len(r.logprobs) + len(r.token_ends) for r in finished.responses)
