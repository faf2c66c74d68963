"""The bus: Celery on Redis, for hints only. A message carries ids and means "look, there may be work".

Every consumer leases its work from the owner's API, so a lost, late or repeated message does no harm. Messages are
acknowledged early; long work is never held inside one.
"""

import logging

from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

SAMPLING_QUEUE, CONTROL_QUEUE, TRAINING_QUEUE = "sampling", "control", "training"
DRAIN_TASK, ADVANCE_TASK, EXECUTE_TASK = "sampling.drain", "cascade.advance", "training.execute"
_QUEUE_OF = {DRAIN_TASK: SAMPLING_QUEUE, ADVANCE_TASK: CONTROL_QUEUE, EXECUTE_TASK: TRAINING_QUEUE}


def create_celery(name: str, redis_url: str) -> Celery:
    """A Celery app with our settings: JSON only, early acknowledgement, hints that expire."""
    celery = Celery(name, broker=redis_url)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=True,
        task_routes={task: {"queue": queue} for task, queue in _QUEUE_OF.items()},
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": 60,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
        },
        worker_hijack_root_logger=False,
        redbeat_redis_url=redis_url,
        redbeat_lock_timeout=30,
        beat_max_loop_interval=2,
        timezone="UTC",
    )
    return celery


def hint(celery: Celery, task: str, *ids: str, expires_s: float = 120.0) -> None:
    """Send a hint that is forgotten after `expires_s`.

    A dead broker loses nothing: the beat sweep sends the hints again, so this only warns.
    """
    try:
        celery.send_task(task, args=list(ids), queue=_QUEUE_OF[task], expires=expires_s, retry=False)
    except OperationalError as error:
        log.warning("hint %s was not sent (%s); the next sweep repeats it", task, error)
