"""Identity by content: the same thing written twice has the same id."""

import hashlib
from uuid import UUID, uuid5

from shared.contracts.base import Contract
from shared.contracts.questions import QuestionIn
from shared.normal_forms import nfc


def normal_text(text: str) -> str:
    """Unicode NFC, with every run of white space as one space and none at the ends."""
    return " ".join(nfc(text).split())


def text_hash(text: str) -> bytes:
    """sha256 of the normalised text: equal for texts that a reader cannot tell apart."""
    return hashlib.sha256(normal_text(text).encode()).digest()


def question_id(campaign_id: UUID, question: QuestionIn) -> UUID:
    """By normalised text, kind and split: an eval question that equals a train question is another question."""
    return identify(campaign_id, question)[0]


def identify(campaign_id: UUID, question: QuestionIn) -> tuple[UUID, bytes]:
    """The id of a question and the hash of its text."""
    normal = normal_text(question.question)
    content = hashlib.sha256(f"{question.kind}\0{question.split}\0{normal}".encode()).hexdigest()
    return uuid5(campaign_id, content), hashlib.sha256(normal.encode()).digest()


def order_id(campaign_id: UUID, key: str) -> UUID:
    """By the campaign and the writer's key."""
    return uuid5(campaign_id, f"order:{key}")


def difficulty_scope(campaign_id: UUID) -> UUID:
    """The scope of the counters of a campaign's levels by version and moves between pools."""
    return uuid5(campaign_id, "difficulty")


def snapshot_id(campaign_id: UUID, key: str) -> UUID:
    """By the campaign and the writer's key."""
    return uuid5(campaign_id, f"snapshot:{key}")


def group_id(assignment_id: UUID) -> UUID:
    """An assignment has at most one group."""
    return uuid5(assignment_id, "group")


def batch_id(run_id: UUID, step: int) -> UUID:
    """A step of a run has one batch."""
    return uuid5(run_id, f"batch:{step}")


def request_hash(request: Contract) -> str:
    """sha256 of a request's canonical JSON, to tell a repetition from a contradiction."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()
