"""The SFT mask: which token is trained, at every boundary; and the order of rows."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.failures import RunError
from services.training.sft.order import batch_order, micro_batch_size
from services.training.sft.rows import IGNORED, TrainedSegment, label_tokens, read_segments, tokenise_rows
from services.training.sft.train import tokenise_snapshot
from shared.contracts.runs import RunFailure
from shared.contracts.snapshots import Snapshot, SnapshotRecipe, SnapshotStatus
from shared.trajectories.segments import Round, SegmentKind, assemble

END = 999
SOLVE, VERIFY = SegmentKind.SOLVE, SegmentKind.VERIFY


@st.composite
def labelled(draw: st.DrawFn) -> tuple[list[int], list[TrainedSegment]]:
    """(token ends, segments): tokens of 1-4 characters cut without regard to the segments."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    segments, start = [], 0
    for index, length in enumerate(lengths):
        kind = (SOLVE, VERIFY)[index % 2]
        segments.append(TrainedSegment(kind, start, start + length, draw(st.booleans())))
        start += length
    ends: list[int] = []
    while not ends or ends[-1] < start:
        ends.append(min(start, (ends[-1] if ends else 0) + draw(st.integers(1, 4))))
    return ends, segments


@given(labelled(), st.integers(0, 5))
def test_a_token_is_trained_when_its_last_character_is_in_a_trained_segment(
    drawn: tuple[list[int], list[TrainedSegment]], prompt: int
) -> None:
    ends, segments = drawn
    prompt_ids, response_ids = list(range(500, 500 + prompt)), list(range(len(ends)))
    input_ids, labels = label_tokens(prompt_ids, response_ids, ends, segments, END)
    assert input_ids == [*prompt_ids, *response_ids, END]
    assert labels[:prompt] == [IGNORED] * prompt
    for index, end in enumerate(ends):
        owner = next(segment for segment in segments if segment.start < end <= segment.end)
        assert labels[prompt + index] == (index if owner.trained else IGNORED)
    assert labels[-1] == (END if segments[-1].trained else IGNORED)
    assert len(labels) == len(input_ids)


def test_three_rounds_train_only_what_the_s2r_mask_says() -> None:
    segments = [TrainedSegment((SOLVE, VERIFY)[n % 2], n * 2, n * 2 + 2, n in (1, 3, 4, 5)) for n in range(6)]
    _, labels = label_tokens([], list(range(12)), list(range(1, 13)), segments, END)
    assert labels == [IGNORED, IGNORED, 2, 3, IGNORED, IGNORED, 6, 7, 8, 9, 10, 11, END]


def test_tool_output_is_never_trained() -> None:
    segments = [TrainedSegment(SegmentKind.ACT, 0, 1, True), TrainedSegment(SegmentKind.OBSERVE, 1, 2, True)]
    assert label_tokens([], [7, 8], [1, 2], segments, END)[1] == [7, IGNORED, IGNORED]


class CharacterTokenizer:
    """One token a character."""

    eos_token_id = END

    def __call__(self, text: str, **_: object) -> dict[str, list[object]]:
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(n, n + 1) for n in range(len(text))]}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> list[int]:
        return [1, *(ord(c) for c in messages[0]["content"]), 2]


def conversation(question: str, text: str) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": text}],
    }


def row(trained: tuple[bool, ...], question: str = "1+1?") -> dict[str, object]:
    built = assemble([Round("1+1=3\n\\boxed{3}", "3-1=2\nTherefore, the answer is incorrect.")])
    segments = [
        {"kind": segment.kind.value, "start": segment.start, "end": segment.end, "trained": bit}
        for segment, bit in zip(built.segments, trained, strict=True)
    ]
    return {"question_id": "q", **conversation(question, built.text), "segments": segments}


def test_rows_that_are_too_long_or_train_nothing_are_counted() -> None:
    rows = [row((True, True)), row((False, False)), row((True, True), "1" * 1000)]
    tokenised = tokenise_rows(rows, CharacterTokenizer(), max_tokens=400)
    assert (len(tokenised.input_ids), tokenised.left_out) == (1, {"nothing_trained": 1, "too_long": 1})
    assert tokenised.input_ids[0][:6] == [1, *map(ord, "1+1?"), 2]
    assert tokenised.labels[0][-1] == END


def test_a_snapshot_with_no_row_that_fits_is_a_failure_of_its_own() -> None:
    snapshot = Snapshot(
        id=UUID(int=1),
        campaign_id=UUID(int=2),
        key="distill",
        recipe=SnapshotRecipe.DISTILL,
        status=SnapshotStatus.READY,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(RunError, match=r"None of the 2 rows .* \(2 too_long; max_tokens 8\)") as failed:
        tokenise_snapshot(snapshot, [row((True, True))] * 2, CharacterTokenizer(), max_tokens=8)
    assert failed.value.failure is RunFailure.NO_ROW_FITS


def test_segments_that_do_not_tile_the_text_are_refused_by_row() -> None:
    broken = row((True, True)) | conversation("1+1?", "short")
    with pytest.raises(ValueError, match=r"row 1 .*do not tile"):
        tokenise_rows([row((True, True)), broken], CharacterTokenizer(), 400)
    with pytest.raises(ValueError, match="tile"):
        read_segments(conversation("", "") | {"segments": []})
    with pytest.raises(ValueError, match=r"row 0 .* 2 messages"):
        tokenise_rows([broken | {"prompt": [{"role": "user", "content": "x"}] * 2}], CharacterTokenizer(), 400)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=50), st.integers(1, 9), st.integers(1, 30), st.integers(0, 99)
)
def test_every_row_is_used_once_before_any_is_used_again_and_no_batch_has_one_twice(
    lengths: list[int], batch_size: int, steps: int, seed: int
) -> None:
    order = batch_order(lengths, batch_size, steps, seed)
    assert len(order) == batch_size * steps
    counts = [0] * len(lengths)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        assert len(set(batch)) == min(batch_size, len(lengths))
        for row in batch:
            counts[row] += 1
        assert max(counts) - min(counts) <= 1
    assert order == batch_order(lengths, batch_size, steps, seed)


def test_batches_are_of_similar_length() -> None:
    lengths = list(range(160))
    order = batch_order(lengths, 10, 16, 0)
    spreads = [max(order[n : n + 10]) - min(order[n : n + 10]) for n in range(0, 160, 10)]
    assert max(spreads) == 9
    assert order[:10] != list(range(150, 160))[::-1]


@given(st.integers(1, 200), st.integers(0, 250))
def test_micro_batches_fill_the_batch(batch_size: int, asked: int) -> None:
    micro = micro_batch_size(batch_size, asked)
    assert batch_size % micro == 0
    assert micro <= (asked or batch_size)
