"""Snapshot rows to token ids and labels (pure but for the tokenizer).

Invariant: a token is trained exactly when the segment in which its last character lies is trained; the end-of-sequence
token belongs to the last segment; the prompt is never trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.trajectories.segments import Segment, SegmentKind, segment_token_spans

IGNORED = -100


@dataclass(frozen=True)
class TrainedSegment:
    """A span of a response and whether it contributes to the loss (the S2R mask)."""

    kind: SegmentKind
    start: int
    end: int
    trained: bool


@dataclass
class Tokenised:
    """Rows ready for training, and how many were left out, by reason."""

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count a row that is not trained on."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def label_tokens(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    token_ends: Sequence[int],
    segments: Sequence[TrainedSegment],
    end_token_id: int,
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of one row; labels are not shifted, IGNORED where a token does not count.

    `token_ends` has the character offset after each response token. The end token is appended here.
    """
    completion = [*response_ids, end_token_id]
    text_end = segments[-1].end
    spans = segment_token_spans(
        [*token_ends, text_end], [Segment(segment.kind, segment.start, segment.end) for segment in segments]
    )
    labels = [IGNORED] * len(completion)
    for segment, (first, last) in zip(segments, spans, strict=True):
        if segment.trained and segment.kind is not SegmentKind.OBSERVE:
            labels[first:last] = completion[first:last]
    return [*prompt_ids, *completion], [IGNORED] * len(prompt_ids) + labels


def question_of(row: Mapping[str, Any]) -> str:
    """The text of the question: the prompt's one message."""
    return _content(row["prompt"])


def response_of(row: Mapping[str, Any]) -> str:
    """The text of the response: the completion's one message."""
    return _content(row["completion"])


def _content(messages: Sequence[Mapping[str, str]]) -> str:
    if len(messages) != 1:
        raise ValueError(f"its prompt or completion has {len(messages)} messages, not one")
    return messages[0]["content"]


def read_segments(row: Mapping[str, Any]) -> list[TrainedSegment]:
    """The segments of a row. Raises ValueError when they do not tile the text."""
    segments = [
        TrainedSegment(SegmentKind(item["kind"]), int(item["start"]), int(item["end"]), bool(item["trained"]))
        for item in row["segments"]
    ]
    edges = [0, *(segment.end for segment in segments)]
    if not segments or [segment.start for segment in segments] != edges[:-1] or edges[-1] != len(response_of(row)):
        raise ValueError("its segments do not tile the text")
    return segments


def tokenise_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_tokens: int) -> Tokenised:
    """Every row as (input_ids, labels); a row that is too long or trains nothing is left out and counted.

    Raises ValueError naming the row whose segments are broken.
    """
    result = Tokenised()
    for number, row in enumerate(rows):
        try:
            question, text, segments = question_of(row), response_of(row), read_segments(row)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"row {number} (question {row.get('question_id')}): {error}") from error
        prompt_ids = tokenise_prompt(tokenizer, question)
        response = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        input_ids, labels = label_tokens(
            prompt_ids,
            response["input_ids"],
            [end for _, end in response["offset_mapping"]],
            segments,
            tokenizer.eos_token_id,
        )
        if len(input_ids) > max_tokens:
            result.leave_out("too_long")
        elif all(label == IGNORED for label in labels):
            result.leave_out("nothing_trained")
        else:
            result.input_ids.append(input_ids)
            result.labels.append(labels)
    return result


def tokenise_prompt(tokenizer: Any, question: str) -> list[int]:
    """Token ids of the question in the chat template, up to where the answer begins, as the engine has them."""
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    return [int(token_id) for token_id in ids]
