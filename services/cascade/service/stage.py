"""What every kind of stage shares: the work protocol, its context, keys, and how a stage comes to a halt."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from services.cascade.client import Peers
from services.cascade.models import StageRow
from shared.contracts.campaigns import CampaignStatus, StageName
from shared.contracts.recipe import Recipe
from shared.errors import HeadwaterError

# The peer may answer otherwise to the same request later: it is starting, full, or set up wrongly.
_PASSING_STATUSES = (401, 403, 408, 425, 429)


# What the recipe says, judged by a peer that knows more than the recipe does.
_RECIPE_REFUSALS = frozenset({"address_invalid"})


class WayOut(StrEnum):
    """What a person does about a definite failure: resume when the cause is mended, or change what a campaign never changes."""

    RESUME = "resume"
    ANOTHER_CAMPAIGN = "another-campaign"


class StageHaltedError(Exception):
    """The stage cannot go on: `waiting` until a later sweep finds the cause gone, or `failed` until a person acts."""

    def __init__(self, status: CampaignStatus, sentence: str, way_out: WayOut = WayOut.RESUME) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.way_out = way_out


def waiting(sentence: str) -> StageHaltedError:
    """The stage stays as it is; the next sweep tries again."""
    return StageHaltedError(CampaignStatus.WAITING, sentence)


def failed(sentence: str, way_out: WayOut = WayOut.RESUME) -> StageHaltedError:
    """A definite failure; `sentence` says the cause and what to change."""
    return StageHaltedError(CampaignStatus.FAILED, sentence, way_out)


def halted_by(error: HeadwaterError, stage: StageName) -> StageHaltedError:
    """What a peer's error means: one that may pass is waited out, any other is definite."""
    if error.status >= 500 or error.status in _PASSING_STATUSES:
        return waiting(f"Stage {stage} waits: {error.message.rstrip('.')}; trying again.")
    details = "; ".join(detail.message for detail in error.details)
    way_out = WayOut.ANOTHER_CAMPAIGN if error.code in _RECIPE_REFUSALS else WayOut.RESUME
    return failed(f"Stage {stage} was refused: {error.message}{f' ({details})' if details else ''}", way_out)


@dataclass(frozen=True)
class Context:
    """What a stage may look at: the recipe, the stages before it, and the other services."""

    campaign_id: UUID
    recipe: Recipe
    stages: Mapping[StageName, StageRow]
    peers: Peers

    def policy(self, made_by: StageName) -> tuple[UUID, int]:
        """Id and version of the policy that came out of a finished stage."""
        stage = self.stages[made_by]
        assert stage.policy_id is not None, made_by
        return stage.policy_id, stage.policy_version or 0

    def key(self, name: StageName) -> str:
        """The key of what this stage makes; a resumed stage makes another."""
        attempt = self.stages[name].attempt
        return f"{name}-retry-{attempt}" if attempt else str(name)


class Work(Protocol):
    """One kind of stage. Both methods may be repeated at any point without making anything twice."""

    @property
    def name(self) -> StageName:
        """Which stage it is."""

    async def prepare(self, context: Context) -> dict[str, Any] | None:
        """The body of what the stage will make, decided once; None when there is nothing to do.

        Raises: StageHaltedError when the stage cannot start (yet).
        """

    async def step(self, context: Context, stage: StageRow) -> bool:
        """Make what is missing and look how far it is; True when the stage is done.

        Raises: StageHaltedError; HeadwaterError of a peer.
        """
