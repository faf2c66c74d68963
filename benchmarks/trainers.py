"""What benchmarks of training share: a model, trajectories by the project's builder, a leased run in a real database, and the clock."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from transformers import TrainerCallback

from examples.questions import arithmetic
from services.pool.builders.answers import Answer, AnsweredQuestion
from services.pool.builders.distill import DistillBuilder
from services.training import repository, service
from services.training.checkpoints import CheckpointStore
from services.training.lease import RunLease
from services.training.loop import Attempt
from services.training.policies import Start
from services.training.settings import TrainingSettings
from services.training.tiny import make_tiny_model
from shared.contracts.policies import Policy, PolicyKind
from shared.contracts.recipe import RlRecipe, SftRecipe, TeachRecipe
from shared.contracts.runs import RunIn, RunMethod
from shared.contracts.verdicts import ScoredSegment, SegmentKind, VerdictOutcome
from shared.db import Database

# Of the tiny recipe, examples/recipes/tiny.toml.
TEACH = TeachRecipe(rounds_weights=(0.5, 0.35, 0.15), copies=2)


def model_directory(model: str, scratch: Path) -> Path:
    """The directory of `model`: the tiny policy is made in `scratch`, anything else is a directory already."""
    if model != "tiny":
        return Path(model)
    make_tiny_model(scratch / "tiny")
    return scratch / "tiny"


def trajectories(questions: int, seed: int, teach: TeachRecipe = TEACH) -> list[dict[str, Any]]:
    """Rows of a snapshot for SFT-0, as the tiny recipe has them built: sums whose attempts slip and are mended."""
    builder = DistillBuilder(teach, seed)
    return [
        dict(candidate.record)
        for number, asked in enumerate(arithmetic.questions(questions, 0, seed, arithmetic.Sums()))
        for candidate in builder.candidates(_answered(number, asked))
    ]


def _answered(number: int, asked: dict[str, str]) -> AnsweredQuestion:
    text = asked["solution"]
    segment = ScoredSegment(kind=SegmentKind.SOLVE, start=0, end=len(text), answer=asked["answer"], reward=1.0)
    answer = Answer(text, (segment,), VerdictOutcome.CORRECT)
    return AnsweredQuestion(str(UUID(int=number)), asked["question"], text, asked["domain"], [answer])


def start_at(directory: Path) -> Start:
    """The start policy in a directory."""
    policy = Policy(
        id=UUID(int=1),
        campaign_id=UUID(int=2),
        name="base",
        kind=PolicyKind.BASE,
        uri=str(directory),
        live=False,
        created_at=datetime.now(UTC),
    )
    return Start(policy, policy, directory, None)


def run_of(recipe: SftRecipe | RlRecipe, order_id: UUID | None = None) -> RunIn:
    """A new run by this recipe."""
    return RunIn(
        campaign_id=UUID(int=2),
        key=str(uuid4()),
        method=RunMethod.SFT if isinstance(recipe, SftRecipe) else RunMethod.RL,
        start_policy_id=UUID(int=1),
        snapshot_id=UUID(int=3) if isinstance(recipe, SftRecipe) else None,
        order_id=(order_id or UUID(int=3)) if isinstance(recipe, RlRecipe) else None,
        sft=recipe if isinstance(recipe, SftRecipe) else None,
        rl=recipe if isinstance(recipe, RlRecipe) else None,
        publish_name="run",
        first_version=1,
    )


@contextmanager
def attempt(run: RunIn, directory: Path, settings: TrainingSettings, scratch: Path) -> Iterator[Attempt]:
    """An attempt of a run that is leased in a real database, as a training worker's trainer has it."""
    run_id, fence = asyncio.run(_claim(run, settings))
    with RunLease(settings, run_id, fence) as lease:
        store = CheckpointStore(str(scratch / "artifacts"), run_id, fence, scratch / "cache")
        yield Attempt(lease, settings, run, start_at(directory), store, str(scratch / "artifacts"))


async def _claim(run: RunIn, settings: TrainingSettings) -> tuple[UUID, int]:
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.transaction() as session:
            created, _ = await service.create_run(session, run)
        async with database.transaction() as session:
            row = await repository.claim_run(session, created.id, "benchmark", settings.training_lease_s)
        assert row is not None
        return row.id, row.fence
    finally:
        await database.close()


@dataclass
class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """When each step ended, what processor time it had taken, and how many tokens were trained on. It lets no checkpoint be written."""

    tokens: Callable[[], int]
    seconds: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> Any:
        """Take the time."""
        self.seconds.append(time.perf_counter())
        self.processor_s.append(time.process_time())
        self.counts.append(self.tokens())
        control.should_save = False
        return control

    def steps(self, warm_up: int) -> list["Step"]:
        """Each step after the first `warm_up` ones."""
        ends = list(zip(self.seconds, self.processor_s, self.counts, strict=True))[warm_up - 1 :]
        return [Step(end[0] - start[0], end[1] - start[1], end[2] - start[2]) for start, end in pairwise(ends)]


class Step(NamedTuple):
    """What one step took, and how many tokens it trained on. Of processor seconds a busy machine takes none away."""

    seconds: float
    processor_s: float
    tokens: int
