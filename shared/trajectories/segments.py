"""The trajectory text format: segments, assembling them, and the one parser that cuts sampled text.

A trajectory is `solve verify (solve verify)*`. Every segment owns the phrase (and the line break) that leads to it, so
the spans of the segments tile the text. Training data record spans while the text is assembled; sampled text is
cut by `parse`, which agrees: `parse(assemble(rounds).text) == assemble(rounds)`.

Invariant: the first segment starts at 0, each next one starts where the last ended, the last one ends at `len(text)`.
Limit: the end-of-sequence token is not part of the text; `segment_token_spans` gives it to the last segment.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

RECHECK_PHRASE = "Wait, let me recheck my solution."
RETRY_PHRASE = "Let me try again."


class SegmentKind(StrEnum):
    """What a span of an answer does; `observe` is written by a tool and never trained."""

    SOLVE = "solve"
    VERIFY = "verify"
    ACT = "act"
    OBSERVE = "observe"


class ClaimedVerdict(StrEnum):
    """What a verify segment says about the attempt before it."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNVERIFIABLE = "unverifiable"


class UnparsedReason(StrEnum):
    """Why a sampled text is not a whole trajectory."""

    EMPTY = "empty"
    NO_ANSWER = "no_answer"
    NO_VERIFICATION = "no_verification"
    NO_VERDICT = "no_verdict"
    NO_RETRY_PHRASE = "no_retry_phrase"
    MISPLACED_PHRASE = "misplaced_phrase"
    TEXT_AFTER_END = "text_after_end"


VERDICT_SENTENCES: dict[ClaimedVerdict, str] = {
    ClaimedVerdict.CORRECT: "Therefore, the answer is correct.",
    ClaimedVerdict.INCORRECT: "Therefore, the answer is incorrect.",
    ClaimedVerdict.UNVERIFIABLE: "Therefore, the answer cannot be verified.",
}
_VERDICT_OF = {sentence: verdict for verdict, sentence in VERDICT_SENTENCES.items()}
PROTOCOL_PHRASES: tuple[str, ...] = (RECHECK_PHRASE, RETRY_PHRASE, *VERDICT_SENTENCES.values())
_ANY_PHRASE = re.compile("|".join(map(re.escape, PROTOCOL_PHRASES)))
_INK = re.compile(r"\S")

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^`]*")


@dataclass(frozen=True, slots=True)
class Segment:
    """One span `[start, end)` of character offsets. A solve may have an answer, a verify a verdict."""

    kind: SegmentKind
    start: int
    end: int
    answer: str | None = None
    verdict: ClaimedVerdict | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One attempt ending in a boxed answer, and its verification ending in a verdict sentence; input of `assemble`."""

    attempt: str
    verification: str


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A text and the segments that tile it; `unparsed` names what is missing when it is not a whole trajectory."""

    text: str
    segments: tuple[Segment, ...]
    unparsed: UnparsedReason | None = None

    @property
    def solves(self) -> tuple[Segment, ...]:
        """The attempts, in order."""
        return tuple(segment for segment in self.segments if segment.kind is SegmentKind.SOLVE)

    @property
    def first_answer(self) -> str | None:
        """The answer of the first attempt, or None."""
        return self.solves[0].answer if self.solves else None

    @property
    def final_answer(self) -> str | None:
        """The answer of the LAST attempt, or None when that attempt has none: the one the outcome is judged by."""
        return self.solves[-1].answer if self.solves else None

    def body(self, segment: Segment) -> str:
        """The text of a segment without the phrase that leads to it and without outer white space."""
        text = self.text[segment.start : segment.end].strip()
        phrase = RETRY_PHRASE if segment.kind is SegmentKind.SOLVE else RECHECK_PHRASE
        return text.removeprefix(phrase).strip()


def boxed_answer(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` with balanced braces, stripped; None when there is none or it is blank."""
    opening = text.rfind("\\boxed{")
    if opening < 0:
        return None
    start = opening + len("\\boxed{")
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index].strip() or None
    return None


def code_block(text: str) -> str | None:
    """The content of the last closed fenced block (CommonMark's, by backticks or tildes); None when there is none or it is blank."""
    block: list[str] = []
    found = fence = ""
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if fence and mark.startswith(fence) and not mark.strip(fence[0]):
            found, fence = "".join(block), ""
        elif fence:
            block.append(line)
        elif opening := _FENCE.fullmatch(line.rstrip()):
            fence, block = opening[1], []
    return found if found.strip() else None


def whole_attempt(text: str) -> str | None:
    """The attempt itself, stripped; None when it is blank."""
    return text.strip() or None


def claimed_verdict(verification: str) -> ClaimedVerdict | None:
    """The verdict a verification ends with, or None when it does not end in a verdict sentence."""
    text = verification.rstrip()
    return next((verdict for verdict, sentence in VERDICT_SENTENCES.items() if text.endswith(sentence)), None)


def assemble(rounds: Iterable[Round]) -> Trajectory:
    """Write rounds as one text, recording each segment's offsets on the way.

    Raises ValueError for a round that could not be read back: an attempt without a boxed answer, a verification
    without a final verdict sentence, a protocol phrase inside either, or a round after a verdict that ends the answer.
    """
    text = ""
    segments: list[Segment] = []
    for number, round_ in enumerate(rounds):
        attempt, verification = round_.attempt.strip(), round_.verification.strip()
        answer, verdict = boxed_answer(attempt), claimed_verdict(verification)
        if answer is None:
            raise ValueError(f"attempt {number + 1} has no boxed answer")
        if verdict is None:
            raise ValueError(f"verification {number + 1} does not end in a verdict sentence")
        _refuse_phrases(attempt, f"attempt {number + 1}")
        _refuse_phrases(verification.removesuffix(VERDICT_SENTENCES[verdict]), f"verification {number + 1}")
        if segments and segments[-1].verdict is not ClaimedVerdict.INCORRECT:
            raise ValueError(f"round {number + 1} follows a verdict that ends the answer")
        start = len(text)
        text += f"\n{RETRY_PHRASE}\n{attempt}" if segments else attempt
        segments.append(Segment(SegmentKind.SOLVE, start, len(text), answer=answer))
        start = len(text)
        text += f"\n{RECHECK_PHRASE}\n{verification}"
        segments.append(Segment(SegmentKind.VERIFY, start, len(text), verdict=verdict))
    if not segments:
        raise ValueError("a trajectory needs at least one round")
    return Trajectory(text, tuple(segments))


def parse(text: str, answer_of: Callable[[str], str | None] = boxed_answer) -> Trajectory:
    """Cut sampled text into segments; `answer_of` finds the answer in the text of an attempt.

    Never raises: what does not follow the format is *unparsed*, with a reason.

    The segments before the fault are kept, and the rest of the text belongs to the segment in which it was found, so the spans
    tile the text in every case. A verdict is only read from a verdict sentence; there is no default verdict.
    """
    if not text.strip():
        return Trajectory(text, (), UnparsedReason.EMPTY)
    segments: list[Segment] = []
    while True:
        reason = _cut_solve(text, segments, answer_of) or _cut_verify(text, segments)
        if reason is not None:
            return Trajectory(text, _reach_end(segments, text), reason)
        ending = segments[-1]
        rest = _INK.search(text, ending.end)
        if rest is None:
            return Trajectory(text, _reach_end(segments, text))
        if ending.verdict is not ClaimedVerdict.INCORRECT:
            return Trajectory(text, _reach_end(segments, text), UnparsedReason.TEXT_AFTER_END)
        if not text.startswith(RETRY_PHRASE, rest.start()):
            return Trajectory(text, _reach_end(segments, text), UnparsedReason.NO_RETRY_PHRASE)


def segment_token_spans(token_ends: Sequence[int], segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Token index spans `[first, last)` of the segments, given the character offset after each token (never decreasing).

    A token belongs to the segment its last character is in; tokens that add no character, such as the end token, belong to the
    segment that is being written. The spans tile `range(len(token_ends))`.
    """
    spans: list[tuple[int, int]] = []
    first = 0
    for position, segment in enumerate(segments):
        last = (
            len(token_ends) if position == len(segments) - 1 else max(first, bisect_left(token_ends, segment.end + 1))
        )
        spans.append((first, last))
        first = last
    return spans


def _refuse_phrases(text: str, name: str) -> None:
    found = next((phrase for phrase in PROTOCOL_PHRASES if phrase in text), None)
    if found is not None:
        raise ValueError(f"{name} contains the protocol phrase {found!r}")


def _cut_solve(text: str, segments: list[Segment], answer_of: Callable[[str], str | None]) -> UnparsedReason | None:
    """Append the solve segment that starts where the last segment ended."""
    start = segments[-1].end if segments else 0
    body_start = start
    if segments:
        body_start = text.index(RETRY_PHRASE, start) + len(RETRY_PHRASE)
    found = _ANY_PHRASE.search(text, body_start)
    if found is None:
        answer = answer_of(text[body_start:])
        segments.append(Segment(SegmentKind.SOLVE, start, len(text), answer=answer))
        return UnparsedReason.NO_ANSWER if answer is None else UnparsedReason.NO_VERIFICATION
    attempt = text[body_start : found.start()]
    answer = answer_of(attempt)
    segments.append(Segment(SegmentKind.SOLVE, start, body_start + len(attempt.rstrip()), answer=answer))
    if answer is None:
        return UnparsedReason.NO_ANSWER
    return None if found[0] == RECHECK_PHRASE else UnparsedReason.MISPLACED_PHRASE


def _cut_verify(text: str, segments: list[Segment]) -> UnparsedReason | None:
    """Append the verify segment that starts where the last segment ended, at the recheck phrase."""
    start = segments[-1].end
    body_start = text.index(RECHECK_PHRASE, start) + len(RECHECK_PHRASE)
    found = _ANY_PHRASE.search(text, body_start)
    if found is None or found[0] not in _VERDICT_OF:
        segments.append(Segment(SegmentKind.VERIFY, start, len(text)))
        return UnparsedReason.NO_VERDICT
    segments.append(Segment(SegmentKind.VERIFY, start, found.end(), verdict=_VERDICT_OF[found[0]]))
    return None


def _reach_end(segments: list[Segment], text: str) -> tuple[Segment, ...]:
    """The segments, the last one stretched to the end of the text."""
    last = segments[-1]
    return (*segments[:-1], Segment(last.kind, last.start, len(text), last.answer, last.verdict))
