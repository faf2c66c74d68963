"""Segments: spans tile the text, the parser agrees with the assembler, and sampled nonsense is named, never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.trajectories.segments import (
    PROTOCOL_PHRASES,
    RECHECK_PHRASE,
    RETRY_PHRASE,
    VERDICT_SENTENCES,
    ClaimedVerdict,
    Round,
    SegmentKind,
    Trajectory,
    UnparsedReason,
    assemble,
    boxed_answer,
    parse,
    segment_token_spans,
)

CORRECT = VERDICT_SENTENCES[ClaimedVerdict.CORRECT]
INCORRECT = VERDICT_SENTENCES[ClaimedVerdict.INCORRECT]

lines = st.text(alphabet="0123456789+-*= \nabcé∞{}", max_size=30)
answers = st.text(alphabet="0123456789-xé", min_size=1, max_size=5)


@st.composite
def round_lists(draw: st.DrawFn) -> list[Round]:
    """Valid rounds: all verdicts but the last are *incorrect*."""
    count = draw(st.integers(1, 4))
    last = draw(st.sampled_from(list(ClaimedVerdict)))
    verdicts = [ClaimedVerdict.INCORRECT] * (count - 1) + [last]
    return [
        Round(f"{draw(lines)}\n\\boxed{{{draw(answers)}}}", f"{draw(lines)}\n{VERDICT_SENTENCES[verdict]}")
        for verdict in verdicts
    ]


def tiles(trajectory: Trajectory) -> bool:
    ends = [0, *(segment.end for segment in trajectory.segments)]
    starts = [*(segment.start for segment in trajectory.segments), len(trajectory.text)]
    return ends == starts


@given(round_lists())
def test_parse_gives_back_what_was_assembled(rounds: list[Round]) -> None:
    trajectory = assemble(rounds)
    assert tiles(trajectory)
    assert parse(trajectory.text) == trajectory
    assert [segment.kind for segment in trajectory.segments] == [SegmentKind.SOLVE, SegmentKind.VERIFY] * len(rounds)
    bodies = [trajectory.body(segment) for segment in trajectory.segments]
    assert bodies == [text.strip() for round_ in rounds for text in (round_.attempt, round_.verification)]


@given(st.lists(st.one_of(lines, st.sampled_from([*PROTOCOL_PHRASES, "\\boxed{7}", "\\boxed{", "\n"])), max_size=12))
def test_any_text_is_tiled_and_never_raises(pieces: list[str]) -> None:
    trajectory = parse("".join(pieces))
    if trajectory.segments:
        assert tiles(trajectory)
    else:
        assert trajectory.unparsed is UnparsedReason.EMPTY
    if trajectory.unparsed is None:
        assert all(s.answer is not None for s in trajectory.solves)
        assert all(s.verdict is not None for s in trajectory.segments if s.kind is SegmentKind.VERIFY)


@pytest.mark.parametrize(
    ("text", "reason", "final"),
    [
        (" \n", UnparsedReason.EMPTY, None),
        ("1+1=2", UnparsedReason.NO_ANSWER, None),
        ("\\boxed{2}", UnparsedReason.NO_VERIFICATION, "2"),
        (f"1\n{RECHECK_PHRASE}\n1\n{CORRECT}", UnparsedReason.NO_ANSWER, None),
        (f"\\boxed{{2}}\n{RECHECK_PHRASE}\n2-1=1", UnparsedReason.NO_VERDICT, "2"),
        (f"\\boxed{{2}}\n{RECHECK_PHRASE}\nTherefore, the answer is", UnparsedReason.NO_VERDICT, "2"),
        (f"\\boxed{{2}}\n{RECHECK_PHRASE}\n{RETRY_PHRASE}\n{CORRECT}", UnparsedReason.NO_VERDICT, "2"),
        (f"\\boxed{{2}}\n{RECHECK_PHRASE}\n{CORRECT}\n\\boxed{{3}}", UnparsedReason.TEXT_AFTER_END, "2"),
        (f"\\boxed{{2}}\n{RECHECK_PHRASE}\n{INCORRECT}\n\\boxed{{3}}", UnparsedReason.NO_RETRY_PHRASE, "2"),
        (f"\\boxed{{2}}\n{CORRECT}", UnparsedReason.MISPLACED_PHRASE, "2"),
        (f"\\boxed{{2}}\n{RECHECK_PHRASE}\n{INCORRECT}\n{RETRY_PHRASE}\n1+2", UnparsedReason.NO_ANSWER, None),
    ],
)
def test_what_is_missing_is_named(text: str, reason: UnparsedReason, final: str | None) -> None:
    trajectory = parse(text)
    assert trajectory.unparsed is reason
    assert trajectory.final_answer == final


def test_an_answer_that_stops_after_incorrect_is_whole() -> None:
    trajectory = parse(f"\\boxed{{2}}\n{RECHECK_PHRASE}\n{INCORRECT}\n")
    assert trajectory.unparsed is None
    assert trajectory.segments[-1].verdict is ClaimedVerdict.INCORRECT


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1", None),
        ("\\boxed{ }", None),
        ("12", None),
    ],
)
def test_boxed_answer(text: str, answer: str | None) -> None:
    assert boxed_answer(text) == answer


@pytest.mark.parametrize(
    "rounds",
    [
        [],
        [Round("2", CORRECT)],
        [Round("\\boxed{2}", "2=2")],
        [Round(f"{RETRY_PHRASE} \\boxed{{2}}", CORRECT)],
        [Round("\\boxed{2}", f"{INCORRECT}\n{CORRECT}")],
        [Round("\\boxed{2}", CORRECT), Round("\\boxed{3}", CORRECT)],
    ],
)
def test_what_could_not_be_read_back_is_refused(rounds: list[Round]) -> None:
    with pytest.raises(ValueError, match=r"round|attempt|verification"):
        assemble(rounds)


@given(round_lists(), st.data())
def test_token_spans_tile_the_tokens_and_respect_the_segments(rounds: list[Round], data: st.DataObject) -> None:
    trajectory = assemble(rounds)
    size = len(trajectory.text)
    inner = data.draw(st.lists(st.integers(0, size), max_size=40))
    token_ends = [*sorted([*inner, size]), size]
    spans = segment_token_spans(token_ends, trajectory.segments)
    assert [index for first, last in spans for index in range(first, last)] == list(range(len(token_ends)))
    for (first, last), segment in zip(spans, trajectory.segments, strict=True):
        for index in range(first, last):
            assert token_ends[index] <= segment.end
            assert token_ends[index] > segment.start or token_ends[index] == 0 or segment is trajectory.segments[-1]


def test_the_end_token_belongs_to_the_last_segment() -> None:
    trajectory = assemble([Round("\\boxed{2}", CORRECT)])
    solve, verify = trajectory.segments
    token_ends = [*range(1, verify.end + 1), verify.end]
    assert segment_token_spans(token_ends, trajectory.segments) == [(0, solve.end), (solve.end, verify.end + 1)]
