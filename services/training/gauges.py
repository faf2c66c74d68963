"""The newest logged point of every running run as Prometheus gauges of the training API; a run that ended has none."""

import asyncio
import logging

from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError

from services.training import repository
from shared.db import Database

log = logging.getLogger(__name__)
PERIOD_S = 15.0
_value = Gauge("headwater_training_value", "Newest logged value of a run that is running", ["run", "policy", "metric"])
_step = Gauge("headwater_training_step", "Step of a run that is running", ["run", "policy"])


async def keep(database: Database, period_s: float = PERIOD_S) -> None:
    """Refresh them until cancelled; a database that is away leaves them as they were."""
    while True:
        try:
            await refresh(database)
        except (OSError, TimeoutError, SQLAlchemyError) as error:
            log.warning("the gauges of training are not refreshed: %s", error)
        await asyncio.sleep(period_s)


async def refresh(database: Database) -> None:
    """Read what the trainers logged last."""
    async with database.transaction() as session:
        points = await repository.newest_points(session)
    _value.clear()
    _step.clear()
    for point in points:
        labels = (str(point.run_id), point.policy)
        _step.labels(*labels).set(point.step)
        for name, value in (point.logged or {}).items():
            _value.labels(*labels, name).set(value)
