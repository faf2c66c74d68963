"""Scored answers by question: what every recipe for SFT reads. Attempts and verifications are cut at the recorded spans."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.contracts.generation import FinishReason
from shared.contracts.verdicts import ClaimedVerdict, ScoredSegment, SegmentKind, VerdictOutcome
from shared.trajectories import segments as text_format
from shared.trajectories.build import Attempt, Verification


@dataclass(frozen=True, slots=True)
class Answer:
    """One scored response, with the segments of its verdict; `about`: the answer that it verifies, where it is a verification."""

    text: str
    segments: tuple[ScoredSegment, ...]
    outcome: VerdictOutcome = VerdictOutcome.INCORRECT
    finish_reason: FinishReason = FinishReason.STOP
    about: str | None = None

    def body(self, segment: ScoredSegment) -> str:
        """The text of a segment without the phrase that leads to it."""
        trajectory = text_format.Trajectory(self.text, ())
        kind = text_format.SegmentKind(segment.kind.value)
        return trajectory.body(text_format.Segment(kind, segment.start, segment.end))

    def solves(self) -> Iterator[tuple[ScoredSegment, ScoredSegment | None]]:
        """Each judged attempt, with the verification behind it where there is one."""
        for position, segment in enumerate(self.segments):
            if segment.kind is SegmentKind.SOLVE and segment.reward is not None:
                behind = self.segments[position + 1] if position + 1 < len(self.segments) else None
                yield segment, behind if behind is not None and behind.kind is SegmentKind.VERIFY else None

    def first_attempt(self) -> Attempt | None:
        """The first attempt, or None when there is none that was judged."""
        if not self.segments or self.segments[0].kind is not SegmentKind.SOLVE or self.segments[0].reward is None:
            return None
        return self._attempt(self.segments[0])

    def right_attempt(self) -> str | None:
        """The text of the last attempt that is right."""
        right = [solve for solve, _ in self.solves() if (solve.reward or 0.0) > 0]
        return self.body(right[-1]) if right else None

    def own_verifications(self) -> Iterator[Verification]:
        """What the policy itself wrote about its answers, with the verdict it came to, right or wrong."""
        for solve, check in self.solves():
            if solve.answer is not None and check is not None and check.claimed in _JUDGING:
                yield Verification(solve.answer, self.body(check))

    def verification(self) -> Verification | None:
        """What it says of the answer that it is about, true or not; None when it is no verification."""
        if self.about is None or not self.segments or self.segments[0].claimed not in _JUDGING:
            return None
        return Verification(self.about, self.body(self.segments[0]))

    def _attempt(self, solve: ScoredSegment) -> Attempt:
        return Attempt(self.body(solve), solve.answer or "", correct=(solve.reward or 0.0) > 0)


_JUDGING = (ClaimedVerdict.CORRECT, ClaimedVerdict.INCORRECT)


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question with its scored responses, in a fixed order."""

    id: str
    question: str
    solution: str | None
    domain: str
    answers: Sequence[Answer]
    level: int | None = None


def tiles(segments: Sequence[ScoredSegment], text: str) -> bool:
    """Whether the segments cover the text without a gap."""
    edges = [0, *(segment.end for segment in segments)]
    return bool(segments) and edges == [*(segment.start for segment in segments), len(text)]
