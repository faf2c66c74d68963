"""`headwater report` of the real training API: what trainers wrote about a run by hand, read back."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import uvicorn
from typer.testing import CliRunner

from services.local.cli import app
from services.training import repository, service
from services.training.main import create_app
from services.training.settings import TrainingSettings
from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunFailure, RunIn, RunMethod, RunMetric
from shared.db import Database

pytestmark = pytest.mark.integration


@contextmanager
def serving(settings: TrainingSettings) -> Iterator[str]:
    """The API on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


async def failed_run(database: Database, campaign_id: UUID) -> UUID:
    """An RL run with three logged points, the second without a KL, that ended with a reason."""
    run_in = RunIn(
        campaign_id=campaign_id,
        key="by-hand",
        method=RunMethod.RL,
        start_policy_id=UUID(int=1),
        order_id=UUID(int=2),
        rl=RlRecipe(steps=8),
        publish_name="by-hand",
        first_version=1,
    )
    values = [{"loss": 0.5, "kl": 0.1, "wait_s": 3.0}, {"loss": 0.25, "wait_s": 0.0}, {"loss": 1.0, "kl": 0.3}]
    points = [RunMetric(step=step, values=logged, at=datetime.now(UTC)) for step, logged in enumerate(values, 1)]
    async with database.transaction() as session:
        run, _ = await service.create_run(session, run_in)
        claimed = await repository.claim_run(session, run.id, "test", 30.0)
        assert claimed is not None
        await repository.upsert_metrics(session, run.id, points)
        await repository.beat(session, run.id, claimed.fence, 3, 900, 30.0)
        await repository.record_failure(session, run.id, claimed.fence, RunFailure.NOT_A_NUMBER, "The loss is nan.")
    return run.id


async def test_a_run_by_hand_is_reported_from_its_logged_points(
    settings: TrainingSettings, database: Database, campaign_id: UUID, tmp_path: Path
) -> None:
    run_id = await failed_run(database, campaign_id)

    def headwater_report(*words: str) -> str:
        environment = {"HEADWATER_GATEWAY_URL": url, "HEADWATER_API_KEY": "hw_key"}
        result = CliRunner().invoke(app, ["report", "--run", str(run_id), *words], env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    with serving(settings) as url:
        said = await asyncio.to_thread(headwater_report)
        (run,) = json.loads(await asyncio.to_thread(headwater_report, "--format", "json"))["runs"]
        picture = tmp_path / "run.png"
        await asyncio.to_thread(headwater_report, "--format", "plot", "--output", str(picture))
    assert "by-hand: RL, failed, 3 of 8 steps, 900 tokens" in said
    assert "not_a_number: The loss is nan." in said
    assert (run["steps_logged"], run["values"]["kl"]) == ([1, 2, 3], [0.1, None, 0.3])
    assert picture.read_bytes().startswith(b"\x89PNG")
