"""One submitted item judged by itself: a question, or a refusal that names the item, the cause and the way out."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.pool.service.lines import MAX_ITEM_BYTES, Item
from shared.answers import is_readable
from shared.contracts.base import Items
from shared.contracts.questions import QuestionIn, QuestionKind, Refusal, RefusalReason

MAX_SHOWN_CHARACTERS = 100
AT_ONCE = 250
MAX_PLAIN_DIGITS = 20
MAX_FIELDS = 100
_QUESTIONS = TypeAdapter(Items[QuestionIn])
_JSON_WHITE = b" \t\r\n"
_TEXT_FIELDS = ("question", "answer", "solution")
_REFERENCES = {
    QuestionKind.NUMERIC: "a number, such as 12, -3.5, 1/3 or 3.14 ± 0.01",
    QuestionKind.EXACT: "a text that is more than punctuation",
    QuestionKind.CHOICE: "the letter or digit of a choice, such as B or (B)",
    QuestionKind.CODE: 'JSON with tests or assertions, such as {"tests": [{"input": "2 3", "output": "5"}]}',
    QuestionKind.RUBRIC: 'JSON with criteria, such as {"criteria": "names two risks and a date"}',
}


def read_all(found: Sequence[Item]) -> list[QuestionIn | Refusal]:
    """What `read` says of each item; those without a fault are read many at a time."""
    judged: list[QuestionIn | Refusal] = []
    for start in range(0, len(found), AT_ONCE):
        part = found[start : start + AT_ONCE]
        judged += _clean(part) or [read(item) for item in part]
    return judged


def _clean(found: Sequence[Item]) -> Sequence[QuestionIn] | None:
    """The questions of items that are all without a fault, else None.

    The items are read as one array. A line break between two of them ends any string, and a question has no object in it; so
    items that begin with `{` and end with `}` hold one object or more each, and as many objects as items are one each.
    """
    parts = [item.data.strip(_JSON_WHITE) for item in found if item.data is not None]
    if len(parts) < len(found) or not all(part[:1] == b"{" and part[-1:] == b"}" for part in parts):
        return None
    body = b"[" + b",\n".join(parts) + b"]"
    if b"\0" in body or b"\\u0000" in body or any(part.count(b":") > MAX_FIELDS for part in parts):
        return None
    try:
        questions = _QUESTIONS.validate_json(body)
    except ValidationError:
        return None
    return questions if len(questions) == len(found) and all(map(is_faultless, questions)) else None


def is_faultless(question: QuestionIn) -> bool:
    """Whether a valid question is not refused either for what it says."""
    answer, solution = question.answer, question.solution
    is_written = not question.question.isspace() and not answer.isspace() and (solution is None or solution.strip())
    plain = question.kind is QuestionKind.NUMERIC and len(answer) < MAX_PLAIN_DIGITS and answer.isascii()
    return bool(is_written) and ((plain and answer.isdigit()) or is_readable(question.kind, answer))


def read(item: Item) -> QuestionIn | Refusal:
    """The question of an item, or why there is none."""
    if item.data is None:
        return _refuse(
            item,
            RefusalReason.TOO_LARGE,
            f"is larger than {MAX_ITEM_BYTES:,} bytes; shorten the question or leave it out",
        )
    try:
        text = item.data.decode("utf-8")
    except UnicodeDecodeError as error:
        return not_utf8(item, error)
    if "\0" in text:
        return _refuse(item, RefusalReason.NUL_CHARACTER, "contains a NUL byte; remove it")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return _refuse(item, RefusalReason.INVALID_JSON, f"is not JSON ({error.msg} at character {error.pos}); mend it")
    except (RecursionError, ValueError) as error:
        return _refuse(item, RefusalReason.INVALID_JSON, f"cannot be read as JSON ({error}); mend it")
    return question(item, value)


def not_utf8(item: Item, error: UnicodeDecodeError, field: str | None = None) -> Refusal:
    """The refusal of bytes that are no text."""
    where = f" of its '{field}'" if field else ""
    what = f"has a byte at offset {error.start}{where} that is not UTF-8; save the file as UTF-8"
    return _refuse(item, RefusalReason.INVALID_UTF8, what, field)


def question(item: Item, value: Any) -> QuestionIn | Refusal:
    """The question of a value that was read, or why there is none."""
    if not isinstance(value, dict):
        return _refuse(
            item,
            RefusalReason.NOT_A_MAPPING,
            f"is a JSON {type(value).__name__}; write an object with 'question' and 'answer'",
        )
    if len(value) > MAX_FIELDS:
        what = f"has {len(value):,} fields; a question has {', '.join(QuestionIn.model_fields)}"
        return _refuse(item, RefusalReason.INVALID_FIELD, what)
    for field, content in value.items():
        if "\0" in field or (isinstance(content, str) and "\0" in content):
            name = shown(field)
            return _refuse(item, RefusalReason.NUL_CHARACTER, f"has a NUL character in '{name}'; remove it", name)
    for field in _TEXT_FIELDS:
        content = value.get(field)
        if isinstance(content, str) and not content.strip():
            return _refuse(item, RefusalReason.BLANK, f"has a blank {field!r}; write it or leave the item out", field)
    try:
        valid = QuestionIn.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = shown(".".join(str(part) for part in first["loc"]))
        return _refuse(
            item, RefusalReason.INVALID_FIELD, _field_message(first["type"], field, first["msg"], value), field
        )
    if is_readable(valid.kind, valid.answer):
        return valid
    return _refuse(
        item,
        RefusalReason.REFERENCE_UNPARSEABLE,
        f"has the answer '{shown(valid.answer)}', which nothing of kind '{valid.kind}' can be judged against; "
        f"write {_REFERENCES[valid.kind]}, or name another kind",
        "answer",
    )


def _field_message(error_type: str, field: str, message: str, value: dict[str, Any]) -> str:
    if error_type == "missing":
        kind = value.get("kind", "math")
        kind = kind if isinstance(kind, str) else type(kind).__name__
        need = f" (a question of kind '{shown(kind)}' is judged by its reference answer)" if field == "answer" else ""
        return f"has no '{field}'{need}; add it"
    if error_type == "extra_forbidden":
        return f"has an unknown field '{field}'; known are {', '.join(QuestionIn.model_fields)}"
    return f"has a wrong '{field}': {message[:300]}"


def shown(text: str) -> str:
    """What somebody sent, in a form that every answer can carry."""
    return ascii(text)[1:-1][:MAX_SHOWN_CHARACTERS]


def _refuse(item: Item, reason: RefusalReason, what: str, field: str | None = None) -> Refusal:
    return Refusal(line=item.line, field=field, reason=reason, message=f"Item {item.line} {what}.")
