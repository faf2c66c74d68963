"""References that say how an answer is judged, and not what it is: written by clients, read by ingest and by verification.

They travel as JSON text in a question's `answer`.
"""

from typing import TypeVar

from pydantic import Field, ValidationError, model_validator

from shared.contracts.base import Contract, Items

MAX_TESTS = 200
T = TypeVar("T", bound=Contract)


class ProgramTest(Contract):
    """What a program reads, and what it is to print; white space at the ends of lines and of the output aside."""

    input: str
    output: str


class CodeTests(Contract):
    """Kind `code`: either `tests` of the whole program, or `assertions` (lines of Python) that are run after it.

    `time_limit_s`: CPU seconds of one test, or of the program with all its assertions.
    """

    tests: Items[ProgramTest] = Field(default=(), max_length=MAX_TESTS)
    assertions: Items[str] = Field(default=(), max_length=MAX_TESTS)
    time_limit_s: int = Field(default=4, ge=1, le=60)

    @model_validator(mode="after")
    def _has_one_form(self) -> "CodeTests":
        if bool(self.tests) == bool(self.assertions):
            raise ValueError("either 'tests' or 'assertions' is needed")
        return self


class Rubric(Contract):
    """Kind `rubric`: what a good answer has, in words. The weights of `task_type` are configured at verification."""

    criteria: str = Field(min_length=1)
    task_type: str = Field(default="general", pattern=r"^[a-z][a-z0-9_-]{0,63}$")


def code_tests(reference: str) -> CodeTests | None:
    """The tests that a reference of kind `code` is, or None."""
    return _read(CodeTests, reference)


def rubric(reference: str) -> Rubric | None:
    """The rubric that a reference of kind `rubric` is, or None."""
    return _read(Rubric, reference)


def _read(kind: type[T], reference: str) -> T | None:
    try:
        return kind.model_validate_json(reference)
    except ValidationError:
        return None
