"""One submitted item judged by itself: a question, or a refusal that names the item, the cause and the way out."""

import json
from typing import Any

from pydantic import ValidationError

from services.pool.service.lines import MAX_ITEM_BYTES, Item
from shared.answers import is_readable
from shared.contracts.questions import QuestionIn, QuestionKind, Refusal, RefusalReason

MAX_SHOWN_CHARACTERS = 100
_TEXT_FIELDS = ("question", "answer", "solution")
_REFERENCES = {
    QuestionKind.NUMERIC: "a number, such as 12, -3.5 or 1/3",
    QuestionKind.EXACT: "a text that is more than punctuation",
    QuestionKind.CHOICE: "the letter or digit of a choice, such as B or (B)",
}


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
        return _refuse(
            item,
            RefusalReason.INVALID_UTF8,
            f"has a byte at offset {error.start} that is not UTF-8; save the file as UTF-8",
        )
    if "\0" in text:
        return _refuse(item, RefusalReason.NUL_CHARACTER, "contains a NUL byte; remove it")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return _refuse(item, RefusalReason.INVALID_JSON, f"is not JSON ({error.msg} at character {error.pos}); mend it")
    except (RecursionError, ValueError) as error:
        return _refuse(item, RefusalReason.INVALID_JSON, f"cannot be read as JSON ({error}); mend it")
    return _question(item, value)


def _question(item: Item, value: Any) -> QuestionIn | Refusal:
    if not isinstance(value, dict):
        return _refuse(
            item,
            RefusalReason.NOT_A_MAPPING,
            f"is a JSON {type(value).__name__}; write an object with 'question' and 'answer'",
        )
    for field, content in value.items():
        if "\0" in field or (isinstance(content, str) and "\0" in content):
            name = shown(field)
            return _refuse(item, RefusalReason.NUL_CHARACTER, f"has a NUL character in '{name}'; remove it", name)
    for field in _TEXT_FIELDS:
        content = value.get(field)
        if isinstance(content, str) and not content.strip():
            return _refuse(item, RefusalReason.BLANK, f"has a blank {field!r}; write it or leave the item out", field)
    try:
        question = QuestionIn.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = shown(".".join(str(part) for part in first["loc"]))
        return _refuse(
            item, RefusalReason.INVALID_FIELD, _field_message(first["type"], field, first["msg"], value), field
        )
    if is_readable(question.kind, question.answer):
        return question
    return _refuse(
        item,
        RefusalReason.REFERENCE_UNPARSEABLE,
        f"has the answer '{shown(question.answer)}', which nothing of kind '{question.kind}' can be judged against; "
        f"write {_REFERENCES[question.kind]}, or name another kind",
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
