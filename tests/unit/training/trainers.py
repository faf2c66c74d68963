"""A tiny model, runs without a lease, and trainers that take a step in this process."""

import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID

import torch

from services.training.loop import RunTrainer
from services.training.policies import Loaded, Start, load
from services.training.rl.advantages import BatchBaseline
from services.training.rl.trainer import RolloutTrainer, make_rl_trainer
from services.training.sft.rows import IGNORED, Tokenised
from services.training.sft.trainer import MaskedSftTrainer, make_sft_trainer
from shared.arrow.lease import PackedLease
from shared.contracts.policies import Policy, PolicyKind
from shared.contracts.recipe import RlRecipe, SftRecipe
from shared.contracts.runs import RunIn, RunMethod
from shared.packed import PackedGroup, PackedResponse, int32s

T = TypeVar("T", bound=RunTrainer)
ROWS = Tokenised(
    input_ids=[[3, *range(20, 20 + length), 4, *range(40, 40 + length), 1] for length in (2, 9, 5, 3)],
    labels=[[IGNORED] * (length + 2) + [*range(40, 40 + length), 1] for length in (2, 9, 5, 3)],
)


def start_at(base_directory: Path, adapter_directory: Path | None = None) -> Start:
    """The start policy in a directory."""
    policy = Policy(
        id=UUID(int=1),
        campaign_id=UUID(int=2),
        name="start",
        kind=PolicyKind.BASE,
        uri=str(base_directory),
        live=False,
        created_at=datetime.now(UTC),
    )
    return Start(policy, policy, base_directory, adapter_directory)


def run_of(recipe: SftRecipe | RlRecipe) -> RunIn:
    """A run by this recipe."""
    return RunIn(
        campaign_id=UUID(int=2),
        key="run",
        method=RunMethod.SFT if isinstance(recipe, SftRecipe) else RunMethod.RL,
        start_policy_id=UUID(int=1),
        snapshot_id=UUID(int=3) if isinstance(recipe, SftRecipe) else None,
        order_id=UUID(int=3) if isinstance(recipe, RlRecipe) else None,
        sft=recipe if isinstance(recipe, SftRecipe) else None,
        rl=recipe if isinstance(recipe, RlRecipe) else None,
        publish_name="run",
        first_version=1,
    )


def sft_trainer(base_directory: Path, recipe: SftRecipe, directory: Path, rows: Tokenised = ROWS) -> MaskedSftTrainer:
    """A trainer over these rows that reports to nobody."""
    loaded = load(start_at(base_directory), recipe.lora, bf16=recipe.bf16, kl=recipe.kl_beta > 0, seed=0)
    run = run_of(recipe)
    return alone(make_sft_trainer(run, recipe, loaded, rows, directory), run)


def alone(trainer: T, run: RunIn) -> T:
    """The trainer with an attempt that has no lease."""
    lease = SimpleNamespace(work_begins=lambda: None, work_pauses=lambda: None)
    attempt: Any = SimpleNamespace(tokens=0, run=run, state={}, lease=lease)
    trainer.attempt = attempt
    return trainer


def points(trainer: Any) -> list[dict[str, float]]:
    """The logged points of its steps."""
    return [point for point in trainer.state.log_history if "train_runtime" not in point]


@dataclass
class Batches:
    """Gives the same groups at every step, as the pool would."""

    groups: list[PackedGroup]
    policy_version: int = 5
    unacknowledged: list[tuple[UUID, int]] = field(default_factory=list)

    def next_batch(self, _step: int) -> tuple[PackedLease, float]:
        """The groups, at once."""
        return PackedLease(UUID(int=4), self.groups, 0, 0), 0.0


def rl_trainer(loaded: Loaded, recipe: RlRecipe, groups: list[PackedGroup], directory: Path) -> RolloutTrainer:
    """A trainer on these groups that reports to nobody."""
    run = run_of(recipe)
    trainer = alone(make_rl_trainer(run, recipe, loaded, directory), run)
    source: Any = Batches(groups)
    trainer.source, trainer.baseline = source, BatchBaseline()
    return trainer


def sampled_by(model: Any, groups: list[PackedGroup]) -> list[PackedGroup]:
    """The groups with the log-probabilities that the model has for their tokens, as an engine gives them: without dropout."""
    model.eval()
    return [
        replace(group, responses=tuple(_sampled(model, group, response) for response in group.responses))
        for group in groups
    ]


def _sampled(model: Any, group: PackedGroup, response: PackedResponse) -> PackedResponse:
    prompt, tokens = int32s(group.prompt_token_ids).tolist(), int32s(response.token_ids).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
    return replace(response, logprobs=struct.pack(f"<{len(tokens)}f", *logprobs.tolist()))
