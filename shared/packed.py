"""Groups whose token arrays are packed bytes (int32 / float32, little-endian): what JSON and Arrow bodies both become.

Made from a request's body or from the pool's rows, read by the pool, by whoever writes a body, and by the trainer. A buffer
may be a view into the body or row that it came in: nothing is copied, and no token becomes a Python object, until somebody asks.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shared.contracts.generation import FinishReason
from shared.contracts.orders import Group, GroupIn, ResponseIn
from shared.contracts.questions import Question
from shared.contracts.verdicts import Verdict

BYTES_PER_TOKEN = 4
Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class PackedResponse:
    """One verified response; the three arrays have one entry a token.

    `judgement` is the verdict in the form in which it came, as an object or as its JSON; it is made into the other when asked for.
    """

    text: str
    finish_reason: FinishReason
    token_ids: Buffer
    logprobs: Buffer
    token_ends: Buffer
    judgement: Verdict | str

    @property
    def verdict(self) -> Verdict:
        """The verdict. Raises: ValidationError when its JSON is none."""
        if isinstance(self.judgement, str):
            object.__setattr__(self, "judgement", Verdict.model_validate_json(self.judgement))
        assert isinstance(self.judgement, Verdict)
        return self.judgement

    @property
    def verdict_json(self) -> str:
        """The verdict as JSON."""
        return self.judgement if isinstance(self.judgement, str) else self.judgement.model_dump_json()

    @property
    def tokens(self) -> int:
        """How many tokens the response has."""
        return len(self.token_ids) // BYTES_PER_TOKEN

    def contract(self) -> ResponseIn:
        """The JSON form."""
        return ResponseIn.model_construct(
            text=self.text,
            finish_reason=self.finish_reason,
            token_ids=_base64(self.token_ids),
            logprobs=_base64(self.logprobs),
            token_ends=_base64(self.token_ends),
            verdict=self.verdict,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PackedGroupIn:
    """A finished group on its way into the pool: `shared.contracts.orders.GroupIn`, packed."""

    assignment_id: UUID
    lease_token: UUID
    policy_id: UUID
    prompt_token_ids: Buffer
    responses: tuple[PackedResponse, ...]

    def contract(self) -> GroupIn:
        """The JSON form."""
        return GroupIn.model_construct(
            assignment_id=self.assignment_id,
            lease_token=self.lease_token,
            policy_id=self.policy_id,
            prompt_token_ids=_base64(self.prompt_token_ids),
            responses=tuple(response.contract() for response in self.responses),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PackedGroup:
    """A stored group: `shared.contracts.orders.Group`, packed. `tokens_expired`: its token arrays are over and empty."""

    id: UUID
    order_id: UUID
    question: Question
    policy_id: UUID
    policy_version: int
    prompt_token_ids: Buffer
    responses: tuple[PackedResponse, ...]
    created_at: datetime
    tokens_expired: bool = False

    def contract(self) -> Group:
        """The JSON form."""
        return Group.model_construct(
            id=self.id,
            order_id=self.order_id,
            question=self.question,
            policy_id=self.policy_id,
            policy_version=self.policy_version,
            prompt_token_ids=_base64(self.prompt_token_ids),
            responses=tuple(response.contract() for response in self.responses),
            created_at=self.created_at,
            tokens_expired=self.tokens_expired,
        )


def pack_group_in(group: GroupIn) -> PackedGroupIn:
    """The packed form of a group that came as JSON or is about to be sent."""
    return PackedGroupIn(
        group.assignment_id,
        group.lease_token,
        group.policy_id,
        base64.b64decode(group.prompt_token_ids),
        tuple(map(pack_response, group.responses)),
    )


def pack_group(group: Group) -> PackedGroup:
    """The packed form of a group that was read as JSON."""
    return PackedGroup(
        group.id,
        group.order_id,
        group.question,
        group.policy_id,
        group.policy_version,
        base64.b64decode(group.prompt_token_ids),
        tuple(map(pack_response, group.responses)),
        group.created_at,
        group.tokens_expired,
    )


def pack_response(response: ResponseIn) -> PackedResponse:
    """The packed form of one response."""
    return PackedResponse(
        response.text,
        response.finish_reason,
        base64.b64decode(response.token_ids),
        base64.b64decode(response.logprobs),
        base64.b64decode(response.token_ends),
        response.verdict,
    )


def int32s(packed: Buffer) -> NDArray[np.int32]:
    """A view of packed int32 values."""
    return np.frombuffer(packed, dtype="<i4")


def float32s(packed: Buffer) -> NDArray[np.float32]:
    """A view of packed float32 values."""
    return np.frombuffer(packed, dtype="<f4")


def joined(buffers: Sequence[Buffer]) -> bytes:
    """One buffer after the other."""
    return b"".join(buffers)


def split(whole: Buffer, lengths: Sequence[int]) -> list[memoryview]:
    """Views of consecutive parts with so many tokens each. Raises: ValueError when they are not the whole."""
    view, parts, start = memoryview(whole), [], 0
    for tokens in lengths:
        end = start + tokens * BYTES_PER_TOKEN
        parts.append(view[start:end])
        start = end
    if start != len(view):
        raise ValueError(f"{len(view)} bytes do not hold {sum(lengths)} tokens")
    return parts


def _base64(buffer: Buffer) -> str:
    return base64.b64encode(buffer).decode("ascii")
